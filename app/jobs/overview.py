"""What the installation did lately, in numbers, from the database alone: no result is read for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from app.inference.findings import Findings
from app.jobs.database import Database
from app.jobs.records import FINISHED, Outcome, State
from app.jobs.tables import attempts, job_findings, jobs

DAY_S = 86_400.0
_HOUR_S = 3600.0
_MOST_JOBS = 2000
"""Of the newest, for the seconds of stages and the figures of nodules."""
_MOST_CODES = 100

NoduleFigures = tuple[float, float, float]
"""Diameter in mm, probability, probability of malignancy."""


@dataclass(frozen=True)
class Overview:
    """Since some time; what was erased counts nowhere."""

    at: float
    per_day: Mapping[int, Mapping[State, int]]
    """Ended jobs by day since 1970 (UTC) and how they ended."""
    last_hour: int
    """Jobs that were answered within the last hour."""
    stages_s: Sequence[Mapping[str, float]]
    """Of the newest analysed jobs."""
    refusals: Mapping[str, int]
    """Attempts that ended with a code."""
    models: Mapping[str, int]
    """Answered jobs by ``name:version``."""
    nodules: Sequence[Sequence[NoduleFigures]]
    """Of the newest analysed scans, each with its nodules; answers copied from another job are not among them."""


def figures_of(findings: Findings) -> list[NoduleFigures]:
    """What is kept of an answer for the overview: three numbers for each nodule."""
    return [
        (round(nodule.diameter_mm, 2), round(nodule.probability, 4), round(nodule.malignancy_probability, 4))
        for nodule in findings.nodules
    ]


def take_overview(database: Database, days: int) -> Overview:
    """Count, in one view of the database.

    Parameters
    ----------
    database
        Of the ledger.
    days
        How far to look back.

    Raises
    ------
    DatabaseUnavailable
        It does not answer.
    """
    with database.reading() as connection:
        at = database.now(connection)
        since = at - days * DAY_S
        return Overview(
            at=at,
            per_day=_per_day(database, connection, since),
            last_hour=connection.execute(
                sa.select(sa.func.count())
                .select_from(jobs)
                .where(jobs.c.state == State.SUCCEEDED, jobs.c.finished_at >= at - _HOUR_S)
            ).scalar_one(),
            stages_s=_stages(connection, since),
            refusals=_refusals(connection, since),
            models=_models(connection, since),
            nodules=_nodules(connection, since),
        )


def _per_day(database: Database, connection: sa.Connection, since: float) -> dict[int, dict[State, int]]:
    # SQLite has no floor in every build, and PostgreSQL rounds where it casts.
    share = jobs.c.finished_at / DAY_S
    day = sa.cast(share if database.is_sqlite else sa.func.floor(share), sa.Integer)
    query = (
        sa.select(day, jobs.c.state, sa.func.count())
        .where(jobs.c.state.in_(FINISHED), jobs.c.finished_at >= since)
        .group_by(day, jobs.c.state)
    )
    found: dict[int, dict[State, int]] = {}
    for number, state, count in connection.execute(query):
        found.setdefault(int(number), {})[State(state)] = count
    return found


def _stages(connection: sa.Connection, since: float) -> list[Mapping[str, float]]:
    query = (
        sa.select(jobs.c.stages_s)
        .where(jobs.c.state == State.SUCCEEDED, jobs.c.finished_at >= since, jobs.c.answered_from.is_(None))
        .order_by(jobs.c.finished_at.desc())
        .limit(_MOST_JOBS)
    )
    return list(connection.execute(query).scalars())


def _refusals(connection: sa.Connection, since: float) -> dict[str, int]:
    ended = (Outcome.REFUSED, Outcome.ERROR, Outcome.DEFERRED, Outcome.LOST)
    query = (
        sa.select(sa.func.coalesce(attempts.c.code, attempts.c.outcome), sa.func.count())
        .where(attempts.c.outcome.in_(ended), attempts.c.finished_at >= since)
        .group_by(sa.func.coalesce(attempts.c.code, attempts.c.outcome))
        .order_by(sa.func.count().desc())
        .limit(_MOST_CODES)
    )
    return _counted(connection, query)


def _models(connection: sa.Connection, since: float) -> dict[str, int]:
    query = (
        sa.select(jobs.c.model, sa.func.count())
        .where(jobs.c.state == State.SUCCEEDED, jobs.c.finished_at >= since)
        .group_by(jobs.c.model)
        .order_by(sa.func.count().desc())
        .limit(_MOST_CODES)
    )
    return _counted(connection, query)


def _counted(connection: sa.Connection, query: sa.Executable) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query)}


def _nodules(connection: sa.Connection, since: float) -> list[list[NoduleFigures]]:
    query = (
        sa.select(job_findings.c.nodules)
        .where(job_findings.c.at >= since)
        .order_by(job_findings.c.at.desc())
        .limit(_MOST_JOBS)
    )
    return [[(one[0], one[1], one[2]) for one in found] for found in connection.execute(query).scalars()]
