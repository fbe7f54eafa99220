"""A job as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.api.problems import Problem, stored_problem
from app.inference.findings import DISCLAIMER
from app.jobs.lookup import Place
from app.jobs.records import LIVE, Attempt, Job, State
from app.reporting.priors import COMPARE_STAGE, PRIOR_STAGE, STAGES
from app.reporting.results import KINDS

FORMS = (*KINDS, "json")
"""In which an answer can be had."""

StateName = Literal["queued", "running", "succeeded", "failed", "parked", "cancelled"]


class StageProgress(BaseModel):
    """One stage of the analysis."""

    name: str = Field(
        description="read, lungs, prepare, detect, characterise or measure; with a prior also prior and compare."
    )
    fraction: float = Field(ge=0, le=1, description="How much of it is done, 0 to 1.")
    seconds: float | None = Field(description="Seconds it took; null until it is done.")


class JobProgress(BaseModel):
    """How far the current attempt is."""

    stage: str = Field(description="The stage being worked on; `wait` before the first, `done` after the last.")
    fraction: float = Field(ge=0, le=1, description="How much of that stage is done, 0 to 1.")
    stages: list[StageProgress] = Field(description="Every stage, in order.")


class JobAttempt(BaseModel):
    """One try."""

    number: int = Field(description="Counted from 1.")
    started_at: datetime = Field(description="When a worker took it up (UTC).")
    finished_at: datetime | None = Field(description="When it ended (UTC); null while it runs.")
    outcome: str | None = Field(
        description="succeeded, answered (the same work had been done before), refused, error, lost (its worker was "
        "gone), deferred (no room on the disk, or the store did not answer), interrupted (its worker was told to stop) "
        "or cancelled; null while it runs."
    )
    stage: str = Field(description="The last stage it reached.")
    code: str | None = Field(description="What went wrong, where something did.")


class StoredResult(BaseModel):
    """The stored answer."""

    sha256: str = Field(
        description="sha256 of what is stored: the document and what other forms are made of. The ETag of the link "
        "`result` is the sha256 of the document alone."
    )
    bytes: int = Field(description="Size of what is stored, in bytes.")


class JobLinks(BaseModel):
    """Where to go from here."""

    self: str = Field(description="This document.")
    events: str = Field(description="What happened and happens, as server-sent events.")
    result: str | None = Field(description="The answer; null until there is one.")
    results: dict[str, str] | None = Field(
        description="The answer in each of its forms, by name: DICOM objects, PDF, FHIR, CSV, JSON; null until there "
        "is one."
    )
    pacs: str | None = Field(
        description="How far the results are on their way to a PACS; POST: send them to one. Null where none is "
        "configured."
    )
    retry: str = Field(description="POST: the same scan again, with other options.")
    data: str = Field(description="DELETE: erase scan and result.")


class JobStatus(BaseModel):
    """One job."""

    id: str = Field(description="Identifier of the job.")
    state: StateName = Field(
        description="queued, running, succeeded, failed (the scan cannot be used), parked (given up after several "
        "attempts) or cancelled."
    )
    disclaimer: str = Field(description="What the answers must not be used for.")
    created_at: datetime = Field(description="When it was acknowledged (UTC).")
    started_at: datetime | None = Field(description="When its first attempt began (UTC).")
    finished_at: datetime | None = Field(description="When it ended (UTC).")
    model: str = Field(description="Model that analyses it, name:version.")
    operating_point: str = Field(description="Operating point of that model.")
    series_uid: str | None = Field(description="SeriesInstanceUID that was asked for; null lets the reader choose.")
    allow_repairs: list[str] = Field(description="Repairs that were permitted.")
    notify: str | None = Field(description="Webhook that is told of its end.")
    prior: str | None = Field(description="Job whose scan this one is compared with.")
    progress: JobProgress = Field(description="How far the current attempt is, stage by stage.")
    position: int | None = Field(description="Place in the line, 1 for the next; 0 while running; null once ended.")
    eta_s: float | None = Field(
        description="Seconds until it may be done, from the jobs before; null once ended, or while no worker is there."
    )
    attempts: list[JobAttempt] = Field(description="Every try. In a list of jobs it is left empty.")
    answered_from: str | None = Field(
        description="Job whose stored answer this is: the same content, model, options and program; nothing was "
        "analysed anew. Null otherwise."
    )
    retry_of: str | None = Field(description="Job whose scan is analysed again.")
    problem: Problem | None = Field(description="Why there is no answer, for failed and parked.")
    result: StoredResult | None = Field(description="The stored answer, once there is one.")
    links: JobLinks = Field(description="Paths that belong to the job.")


class JobList(BaseModel):
    """One page of jobs, the newest first."""

    jobs: list[JobStatus] = Field(description="Without their attempts, places in the line and times to go.")
    next: str | None = Field(description="Link to the next page; null on the last.")


class ErasureReceipt(BaseModel):
    """What an erasure removed, and what was then found left."""

    job_id: str = Field(description="The job. Only this, the fact and the audit trail stay.")
    erased_at: datetime = Field(description="When (UTC).")
    files_removed: int = Field(description="Files of scan and result that were removed by this call.")
    bytes_removed: int = Field(description="Their size.")
    rows_removed: int = Field(description="Rows of attempts, events, keys and messages removed by this call.")
    files_left: int = Field(description="Files found afterwards; 0 unless something went wrong.")
    rows_left: int = Field(description="Rows found afterwards; 0 unless something went wrong.")
    scan_shared_with: list[str] = Field(
        description="Other jobs on the same scan. While there is one the scan stays: erase them too."
    )


def job_status(job: Job, root_path: str, place: Place | None = None, *, has_pacs: bool) -> JobStatus:
    """The public form of a job."""
    order, here = job.order, f"{root_path}/v1/jobs/{job.id}"
    return JobStatus(
        id=job.id,
        state=job.state.value,  # an erased one is answered 410
        disclaimer=DISCLAIMER,
        created_at=_when(job.created_at),
        started_at=_when_or_none(job.started_at),
        finished_at=_when_or_none(job.finished_at),
        model=order.model,
        operating_point=order.operating_point,
        series_uid=order.series_uid,
        allow_repairs=list(order.allow_repairs),
        notify=order.notify,
        prior=order.prior,
        progress=_progress(job),
        position=place.position if place else None,
        eta_s=place.eta_s if place else None,
        attempts=[_attempt(attempt) for attempt in job.attempts],
        answered_from=job.answered_from,
        retry_of=job.retry_of,
        problem=stored_problem(job.problem, root_path, job.id)[1] if job.problem else None,
        result=StoredResult(sha256=job.result.sha256, bytes=job.result.size) if job.result else None,
        links=JobLinks(
            self=here,
            events=f"{here}/events",
            result=f"{here}/result" if job.result else None,
            results={form: f"{here}/results/{form}" for form in FORMS} if job.result else None,
            pacs=f"{here}/pacs" if has_pacs else None,
            retry=f"{here}/retry",
            data=f"{here}/data",
        ),
    )


def _progress(job: Job) -> JobProgress:
    done = job.state is State.SUCCEEDED
    names = STAGES if job.order.prior is None else (PRIOR_STAGE, *STAGES, COMPARE_STAGE)
    reached = names.index(job.stage) if job.stage in names else len(names) if done else -1
    stages = [
        StageProgress(
            name=name,
            fraction=1.0 if number < reached else job.fraction if number == reached else 0.0,
            seconds=job.stages_s.get(name),
        )
        for number, name in enumerate(names)
    ]
    return JobProgress(stage=job.stage, fraction=job.fraction, stages=stages)


def _attempt(attempt: Attempt) -> JobAttempt:
    return JobAttempt(
        number=attempt.number,
        started_at=_when(attempt.started_at),
        finished_at=_when_or_none(attempt.finished_at),
        outcome=attempt.outcome,
        stage=attempt.stage,
        code=attempt.code,
    )


def is_live(job: Job) -> bool:
    """Whether something is still to be expected of it."""
    return job.state in LIVE


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _when_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _when(seconds)
