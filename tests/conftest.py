"""Fixtures that every part of the test suite shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

if TYPE_CHECKING:
    from tests.jobs.nursery import Nursery
    from tests.jobs.postgres import Postgres

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def jobs_stay_out_of_the_repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A service that a test starts keeps its jobs in a folder of this test run."""
    before = os.environ.get("LUNGNODULE_DATA_DIR")
    os.environ["LUNGNODULE_DATA_DIR"] = str(tmp_path_factory.mktemp("data"))
    yield
    os.environ.pop("LUNGNODULE_DATA_DIR")
    if before is not None:
        os.environ["LUNGNODULE_DATA_DIR"] = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real CTs and annotations, beside the repository; tests that read it are skipped without it."""
    folder = _ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real CT data not there: ../shared/data beside the repository's folder is missing")
    return folder


@pytest.fixture(scope="session")
def tiny_model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store that holds ``tiny/1.0.0`` (see `tests.tiny_model`); shared, so not to be written to."""
    from tests.tiny_model import write_tiny_model  # noqa: PLC0415 - onnx is slow to import

    store = tmp_path_factory.mktemp("model_store")
    write_tiny_model(store)
    return store


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """A process that forks services and workers quickly, since it has imported what they import."""
    from tests.jobs.nursery import Nursery  # noqa: PLC0415 - most tests need none

    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster of our own, on a port of its own."""
    from tests.jobs.postgres import running_postgres  # noqa: PLC0415 - most tests need none

    with running_postgres() as cluster:
        yield cluster
