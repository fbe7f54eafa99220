"""Databases for jobs: SQLite in a folder, PostgreSQL in a cluster of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.nursery import Nursery
from tests.jobs.postgres import Postgres, fresh_database
from tests.jobs.processes import Farm, farm
from tests.jobs.s3 import S3, TestBucket, fresh_bucket, running_s3


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestBucket]:
    """A bucket that this process finds too."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with fresh_bucket(s3) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Each kind of database in turn; None is SQLite."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def start_farm(tmp_path: Path, nursery: Nursery) -> Iterator[Callable[..., Farm]]:
    """``start_farm(STUB_STAGE_S="0.1")`` gives processes on a fresh data folder."""
    with farm(tmp_path, nursery) as made:

        def configure(database_url: str | None = None, **settings: str) -> Farm:
            if database_url is not None:
                settings["LUNGNODULE_DATABASE_URL"] = database_url
            made.settings.update(settings)
            return made

        yield configure
