"""One ticket: read the scan from the store, analyse it, store the answer, tell the ledger. Whatever happens is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import structlog

from app.disk_faults import StorageFull, full_disk_refused
from app.imaging.errors import LungNoduleError, OptionError, ScanError
from app.imaging.inputs import InputFile
from app.inference.findings import Findings, OnProgress, Progress
from app.jobs.database import with_patience
from app.jobs.intake import Intake
from app.jobs.ledger import Claim, Ledger
from app.jobs.overview import figures_of
from app.jobs.queue import Ticket
from app.jobs.records import DatabaseUnavailable, Job, Order, Outcome, StoreDamaged, StoreUnavailable, Withdrawn
from app.jobs.store import Store
from app.logs import described

_TELL_EVERY_S = 0.5
"""Between two notes of progress; the first of a stage is told at once."""

AnalyseOrder = Callable[[Sequence[InputFile], Order, OnProgress], Findings]
Render = Callable[[Findings, bytes | None], bytes]
"""From findings and the clinical context of the job, where one was told."""
Turn = Callable[[], AbstractContextManager[None]]
Observe = Callable[[Findings, float], object]
Trace = Callable[[Claim], AbstractContextManager[None]]
After = Callable[[Job, Findings], None]
"""Told of each answer that was analysed here, once it is stored."""


class Interrupted(Exception):
    """The worker is stopping; the job goes back into the line."""


class JobTimeout(LungNoduleError):
    """The analysis took longer than the service allows."""

    default_code = "analysis_timeout"


@dataclass(frozen=True)
class Runner:
    """Works on tickets, in whichever thread calls it.

    Parameters
    ----------
    ledger, intake, store
        Of the installation.
    worker_id
        Whose attempts they are.
    analyse
        Does the work; what its progress function raises must end it.
    render
        The answer as it is stored.
    turn
        Holds the device while a job is analysed.
    timeout_s
        Longest analysis.
    observe
        Told of each answer and the seconds it waited for its turn.
    trace
        Around each attempt.
    after
        Told last; what it does with the scan is no part of the job.
    """

    ledger: Ledger
    intake: Intake
    store: Store
    worker_id: str
    analyse: AnalyseOrder
    render: Render
    turn: Turn
    timeout_s: float
    observe: Observe
    trace: Trace = lambda _claim: nullcontext()
    after: After = lambda _job, _findings: None
    interrupting: threading.Event = field(default_factory=threading.Event)
    _working: set[str] = field(default_factory=set)

    @property
    def working_on(self) -> tuple[str, ...]:
        """Ids of the jobs in hand."""
        return tuple(self._working)

    def __call__(self, ticket: Ticket) -> None:
        """Work on a ticket; never raises."""
        self._working.add(ticket.job_id)
        try:
            with structlog.contextvars.bound_contextvars(job_id=ticket.job_id), _told_when_unavailable():
                claim = with_patience(lambda: self.ledger.begin(ticket, self.worker_id))
                if claim is not None:
                    with self.trace(claim):
                        self._attempt(claim)
        finally:
            self._working.discard(ticket.job_id)

    def _attempt(self, claim: Claim) -> None:
        log = structlog.get_logger(__name__)
        log.info("attempt started", attempt=claim.attempt)
        try:
            self._answer(claim)
            log.info("attempt ended", attempt=claim.attempt, outcome=Outcome.SUCCEEDED)
        except Withdrawn:
            log.info("attempt withdrawn", attempt=claim.attempt)
        except Interrupted:
            self._tell(lambda: self.ledger.give_up_attempt(claim, Outcome.INTERRUPTED))
        except (StorageFull, StoreUnavailable) as obstacle:
            code = obstacle.code
            log.warning("attempt ended", attempt=claim.attempt, outcome=Outcome.DEFERRED, code=code)
            self._tell(lambda: self.ledger.give_up_attempt(claim, Outcome.DEFERRED, code))
        except (ScanError, OptionError, JobTimeout) as refusal:
            error = refusal
            log.info("attempt ended", attempt=claim.attempt, outcome=Outcome.REFUSED, code=error.code)
            self._tell(lambda: self.ledger.refuse(claim, error))
        except BaseException as error:  # noqa: BLE001 - the job runner: decoders raise even PanicException
            code = error.code if isinstance(error, LungNoduleError) else "internal_error"
            code = "out_of_memory" if isinstance(error, MemoryError) else code
            failure = described(error)
            log.error("attempt ended", attempt=claim.attempt, outcome=Outcome.ERROR, failure=failure)  # noqa: TRY400
            self._tell(lambda: self.ledger.give_up_attempt(claim, Outcome.ERROR, code))

    def _answer(self, claim: Claim) -> None:
        job = claim.job
        if job.scan_id is None:
            raise StoreDamaged("The stored scan is gone.", code="scan_missing")
        told = job.order.context_sha256
        context = None if told is None else self.store.context(job.id, told)
        # While it waited, another job may have done the same work.
        known = self.intake.copied_answer(job.work_digest, job.id, claim.attempt) if job.work_digest else None
        if known is not None:
            source, kept = known
            with_patience(lambda: self.ledger.succeed(claim, kept, {}, source))
            return
        note = _Notes(self, claim)
        with self.store.scan(job.scan_id) as files:
            asked = time.monotonic()
            with self.turn():
                waited_s = time.monotonic() - asked
                note.begin()
                with full_disk_refused():
                    findings = self.analyse(files, job.order, note)
        stages_s = {stage: round(seconds, 4) for stage, seconds in findings.timings_s.items()}
        body = self.render(findings, context)
        result = with_patience(lambda: self.store.keep_result(job.id, claim.attempt, body))
        try:
            with_patience(lambda: self.ledger.succeed(claim, result, stages_s, figures=figures_of(findings)))
        except Withdrawn:
            self.store.erase_result(job.id, result)
            raise
        self.observe(findings, waited_s)
        self.after(job, findings)

    def _tell(self, say: Callable[[], None]) -> None:
        """Where the ledger has moved on, there is nothing to tell."""
        try:
            with_patience(say)
        except Withdrawn:
            structlog.get_logger(__name__).info("attempt withdrawn")


class _Notes:
    """Progress of one attempt: told to the ledger now and then, and ended from there."""

    def __init__(self, runner: Runner, claim: Claim) -> None:
        self._runner = runner
        self._claim = claim
        self._stage = ""
        self._stage_began = self._told = self._deadline = 0.0
        self._stages_s: dict[str, float] = {}

    def begin(self) -> None:
        """The time limit counts from here."""
        self._deadline = time.monotonic() + self._runner.timeout_s

    def __call__(self, progress: Progress) -> None:
        """End the attempt where there is reason to; tell how far it is, but not too often.

        Raises
        ------
        Interrupted, Withdrawn, JobTimeout
            The reasons.
        """
        now = time.monotonic()
        if self._runner.interrupting.is_set():
            raise Interrupted
        if now > self._deadline:
            limit_s = self._runner.timeout_s
            raise JobTimeout(f"The analysis took more than {limit_s:g} s.", values={"limit_s": limit_s})
        if progress.stage != self._stage:
            if self._stage:
                self._stages_s[self._stage] = round(now - self._stage_began, 4)
            self._stage, self._stage_began = progress.stage, now
        elif now - self._told < _TELL_EVERY_S:
            return
        self._told = now
        try:
            self._runner.ledger.progress(self._claim, progress.stage, progress.fraction, self._stages_s)
        except DatabaseUnavailable:
            # Progress is not worth the analysis; whether it still counts is looked at when it is done.
            structlog.get_logger(__name__).warning("progress not told")


@contextmanager
def _told_when_unavailable() -> Iterator[None]:
    try:
        yield
    except DatabaseUnavailable as error:
        # The job stays as it is written; recovery finds that nobody works on it.
        structlog.get_logger(__name__).error("ledger unavailable", failure=described(error))
