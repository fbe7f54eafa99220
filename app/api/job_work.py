"""What a worker does with a job: the same analysis as `/v1/predict`, stored as the same document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.api.schemas import result_from_findings
from app.api.service import Analyse, Service, named_model, threads_for
from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.imaging.read_options import ReadOptions
from app.inference.findings import Findings, OnProgress
from app.inference.model_store import LoadedModel
from app.inference.pipeline import AnalysisOptions
from app.jobs.installation import Jobs, work
from app.jobs.records import Order
from app.jobs.runner import AnalyseOrder
from app.reporting.bundle import Bundle, pack
from app.settings import Settings


def order_analysis(settings: Settings, models: Sequence[LoadedModel], scratch: Path, analyse: Analyse) -> AnalyseOrder:
    """The work of a worker with these models; ``scratch`` takes what has to be inflated."""

    def run(files: Sequence[InputFile], order: Order, on_progress: OnProgress) -> Findings:
        model = named_model(models, order.model)
        if model.identity.sha256 != order.model_sha256:
            raise OptionError(
                f"{order.model} is not the model that was asked for: sha256 {order.model_sha256} was promised, "
                f"{model.identity.sha256} is loaded. Ask for the job again by retry.",
                code="model_changed",
                values={"expected": order.model_sha256, "found": model.identity.sha256},
            )
        options = AnalysisOptions(
            read=ReadOptions(
                series_uid=order.series_uid,
                limits=settings.read,
                allow_repairs=frozenset(order.allow_repairs),
                scratch_root=scratch,
            ),
            operating_point=order.operating_point,
            threads=threads_for(settings),
            detector_memory_mib=settings.detector_memory_mib,
        )
        return analyse(files, model, options, on_progress)

    return run


@asynccontextmanager
async def worker_beside(service: Service, jobs: Jobs, *, wanted: bool) -> AsyncIterator[None]:
    """A worker in a thread of this process, which shares the device with `/v1/predict`; it stops when draining."""
    if not wanted:
        yield
        return
    loop = asyncio.get_running_loop()
    started = loop.create_future()
    analysis = order_analysis(service.settings, service.models, service.uploads, service.analyse)

    def host() -> None:
        with work(
            jobs,
            analysis,
            rendered,
            turn=lambda: service.line.turn_of_a_thread(loop),
            observe=service.metrics.observe_analysis,
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


def rendered(findings: Findings) -> bytes:
    """What is stored: the document, and the findings whole, for the forms that are made when they are asked for."""
    document = result_from_findings(findings).model_dump_json().encode()
    return pack(Bundle(document, findings, datetime.now(UTC)))
