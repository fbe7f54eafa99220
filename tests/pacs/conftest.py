"""Each kind of database in turn, as for the jobs."""

from __future__ import annotations

from tests.jobs.conftest import database_url, postgres_url

__all__ = ["database_url", "postgres_url"]
