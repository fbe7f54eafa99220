"""What a worker does with a job: the same analysis as `/v1/predict`, stored as the same document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from app.api.schemas import result_from_findings
from app.api.service import Analyse, Service, threads_for
from app.imaging.errors import ModelError, OptionError
from app.imaging.inputs import InputFile
from app.imaging.read_options import ReadOptions
from app.inference.findings import Findings, OnProgress
from app.inference.model_registry import KnownModel, ModelRegistry
from app.inference.pipeline import AnalysisOptions
from app.jobs.installation import Jobs, work
from app.jobs.ledger import Claim
from app.jobs.prior_scans import FindPrior, stored_prior
from app.jobs.records import Job, Order
from app.jobs.runner import After, AnalyseOrder, Trace
from app.jobs.shadow import Again, Shadow
from app.reporting.bundle import Bundle, pack
from app.reporting.clinical_context import ClinicalContext
from app.reporting.priors import analyse_with_prior
from app.settings import Settings
from app.tracing import Tracing


def order_analysis(
    settings: Settings, models: ModelRegistry, scratch: Path, analyse: Analyse, find_prior: FindPrior
) -> AnalyseOrder:
    """The work of a worker with these models; ``scratch`` takes what has to be inflated.

    A job is analysed by the model of its order, loaded where it is not in memory, whatever is in force by then.
    """

    def run(files: Sequence[InputFile], order: Order, on_progress: OnProgress) -> Findings:
        options = AnalysisOptions(
            read=ordered_reading(settings, order, scratch),
            operating_point=order.operating_point,
            threads=threads_for(settings),
            detector_memory_mib=settings.detector_memory_mib,
            keep_trace=order.prior is not None,
        )
        with models.lease(ordered_model(models, order)) as model:
            if order.prior is None:
                return analyse(files, model, options, on_progress)
            with find_prior(order.prior) as prior:
                # The prior's own series and repairs, all else as for the current scan.
                reading = ordered_reading(settings, prior.order, scratch)
                return analyse_with_prior(
                    lambda told: analyse(prior.files, model, replace(options, read=reading), told),
                    lambda told: analyse(files, model, options, told),
                    on_progress,
                    threads=options.threads,
                )

    return run


def priors_of(jobs: Jobs) -> FindPrior:
    """Where an installation's priors are."""
    return partial(stored_prior, jobs.lookup, jobs.store)


def ordered_model(models: ModelRegistry, order: Order) -> KnownModel:
    """The very model that an order names; `ModelRegistry.lease` lends it.

    Raises
    ------
    OptionError
        ``model_changed``: another is in the store under its name, so trying again would not help.
    ModelError
        It is missing or cannot be used here.
    """
    name, _, version = order.model.partition(":")
    try:
        return models.find(name, version, order.model_sha256)
    except ModelError as error:
        if error.code != "model_changed":  # another worker may have it, or this one later
            raise
        raise OptionError(
            f"{order.model} is not the model that was asked for: sha256 {order.model_sha256} was promised, "
            f"{error.values['found']} is in the store. Ask for the job again by retry.",
            code="model_changed",
            values={"expected": order.model_sha256, "found": error.values["found"]},
        ) from error


def ordered_reading(settings: Settings, order: Order, scratch: Path) -> ReadOptions:
    """How an order's scan is read; ``scratch`` takes what has to be inflated."""
    return ReadOptions(
        series_uid=order.series_uid,
        limits=settings.read,
        allow_repairs=frozenset(order.allow_repairs),
        scratch_root=scratch,
    )


def attempt_tracing(tracing: Tracing, jobs: Jobs) -> Trace:
    """A span around each attempt, linked to the request that made the job."""

    def trace(claim: Claim) -> AbstractContextManager[None]:
        job_id = claim.job.id
        return tracing.job(job_id, claim.attempt, lambda: jobs.lookup.traceparent(job_id))

    return trace


def after_jobs(shadow: Shadow | None, settings: Settings, jobs: Jobs, scratch: Path) -> After:
    """What a worker does after an answer is stored: offer the scan, which is opened anew from the store."""
    if shadow is None:
        return lambda _job, _findings: None

    def offer(job: Job, findings: Findings) -> None:
        if job.scan_id is None or jobs.lookup.waiting():
            shadow.pass_over()
            return
        options = AnalysisOptions(
            read=ordered_reading(settings, job.order, scratch),
            threads=threads_for(settings),
            detector_memory_mib=settings.detector_memory_mib,
        )
        shadow.offer(Again(partial(jobs.store.scan, job.scan_id), options, findings))

    return offer


def standing_back(shadow: Shadow | None, trace: Trace) -> Trace:
    """Each attempt at a job with the shadow out of the way."""
    if shadow is None:
        return trace

    @contextmanager
    def attempt(claim: Claim) -> Iterator[None]:
        with shadow.standing_back(), trace(claim):
            yield

    return attempt


@asynccontextmanager
async def worker_beside(service: Service, jobs: Jobs, *, wanted: bool) -> AsyncIterator[None]:
    """A worker in a thread of this process, which shares the device with `/v1/predict`; it stops when draining."""
    if not wanted:
        yield
        return
    loop = asyncio.get_running_loop()
    started = loop.create_future()
    analysis = order_analysis(
        service.settings, service.models.registry, service.uploads, service.analyse, priors_of(jobs)
    )

    def host() -> None:
        with work(
            jobs,
            analysis,
            rendered,
            turn=lambda: service.line.turn_of_a_thread(loop),
            observe=service.metrics.observe_analysis,
            trace=standing_back(service.shadow, attempt_tracing(service.tracing, jobs)),
            after=after_jobs(service.shadow, service.settings, jobs, service.uploads),
        ):
            loop.call_soon_threadsafe(started.set_result, None)
            service.draining.wait()

    hosting = asyncio.create_task(asyncio.to_thread(host))
    await asyncio.wait([hosting, started], return_when=asyncio.FIRST_COMPLETED)
    if hosting.done():
        await hosting  # could not start: say why
    try:
        yield
    finally:
        service.draining.set()
        await hosting


def rendered(findings: Findings, context: bytes | None) -> bytes:
    """What is stored: the document, and the findings whole, for the forms that are made when they are asked for.

    ``context`` as the job keeps it.
    """
    told = None if context is None else ClinicalContext.model_validate_json(context)
    document = result_from_findings(findings, told).model_dump_json().encode()
    return pack(Bundle(document, findings, datetime.now(UTC)))
