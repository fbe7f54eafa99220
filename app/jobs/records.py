"""What is known about a job, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.imaging.errors import LungNoduleError


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The scan or an option cannot be used; the reason is in ``problem``."""
    PARKED = "parked"
    """Given up after several attempts that ended without an answer."""
    CANCELLED = "cancelled"
    ERASED = "erased"
    """Nothing is left but the fact."""


LIVE = (State.QUEUED, State.RUNNING)
FINISHED = (State.SUCCEEDED, State.FAILED, State.PARKED, State.CANCELLED)


class Outcome(StrEnum):
    """How one attempt ended."""

    SUCCEEDED = "succeeded"
    ANSWERED = "answered"
    """The same work had been done before; nothing was analysed."""
    REFUSED = "refused"
    """The scan or an option cannot be used; trying again would not help."""
    ERROR = "error"
    LOST = "lost"
    """The worker was gone."""
    DEFERRED = "deferred"
    """No room on the disk, or the store did not answer; does not count against the job."""
    INTERRUPTED = "interrupted"
    """Handed back by a worker that was told to stop; does not count against the job."""
    CANCELLED = "cancelled"


COUNTED = (Outcome.ERROR, Outcome.LOST)
"""Outcomes that bring a job closer to being parked."""


@dataclass(frozen=True)
class Order:
    """What is to be done with a scan."""

    model: str
    """``name:version``."""
    model_sha256: str
    operating_point: str
    series_uid: str | None = None
    allow_repairs: tuple[str, ...] = ()
    notify: str | None = None
    """Name of a configured webhook."""
    context_sha256: str | None = None
    """Of the clinical context that lies in the job's folder: the ledger holds no age and no sex."""
    prior: str | None = None
    """Id of the job whose scan this one is compared with."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the store."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Attempt:
    """One try."""

    number: int
    started_at: float
    finished_at: float | None
    outcome: str | None
    """One of `Outcome`; None while it runs."""
    stage: str
    """The last one reached."""
    code: str | None
    """Of the error, where there was one."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; ``seq`` counts from 1 without gaps."""

    seq: int
    at: float
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One row of the ledger. Times are seconds since 1970 (UTC) by the database's clock."""

    id: str
    state: State
    scan_id: str | None
    ticket: int
    attempt: int
    worker_id: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    order: Order
    stage: str
    fraction: float
    stages_s: dict[str, float]
    """Seconds of the finished stages of this attempt."""
    problem: dict[str, Any] | None
    result: StoredFile | None
    work_digest: str | None
    answered_from: str | None
    retry_of: str | None
    erased_at: float | None
    tenant: str
    """Whose it is."""
    attempts: tuple[Attempt, ...] = field(default=())


class UnknownJob(LungNoduleError):
    """No job has this id."""

    default_code = "unknown_job"


class JobErased(LungNoduleError):
    """The job's data were erased."""

    default_code = "job_erased"


class JobConflict(LungNoduleError):
    """The job's state does not allow what was asked."""

    default_code = "job_conflict"


class IdempotencyMismatch(LungNoduleError):
    """The same Idempotency-Key came with another scan or other options."""

    default_code = "idempotency_key_reused"


class AttemptsExhausted(LungNoduleError):
    """Every attempt ended without an answer."""

    default_code = "attempts_exhausted"


class QueueFull(LungNoduleError):
    """As many jobs wait as may."""

    default_code = "queue_full"


class Draining(LungNoduleError):
    """The process is stopping and takes no new work."""

    default_code = "draining"


class DatabaseUnavailable(LungNoduleError):
    """The database does not answer."""

    default_code = "database_unavailable"


class StoreUnavailable(LungNoduleError):
    """Where scans and results are kept does not answer, or does not let us in."""

    default_code = "store_unavailable"


class StoreDamaged(LungNoduleError):
    """A stored file is missing or not what was written."""

    default_code = "store_damaged"


class Withdrawn(Exception):
    """The job is no longer this worker's: cancelled, erased, or given to another. Stop, and write nothing."""
