"""Processes of the jobs' tests, for faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.nursery import Nursery
from tests.jobs.postgres import Postgres, running_postgres
from tests.jobs.processes import Farm, farm


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as cluster:
        yield cluster


@pytest.fixture
def stubs(tmp_path: Path, nursery: Nursery) -> Iterator[Farm]:
    """Services and workers whose analysis is a stub that does what the scan says."""
    with farm(tmp_path, nursery) as made:
        yield made
