"""The PACS connection beside the service: made from the configuration, and what its handlers share."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Annotated, cast

from fastapi import Depends, Request
from pydicom.dataset import Dataset

from app.api.model_choice import Models
from app.inference.pipeline import choose_operating_point
from app.jobs.installation import Jobs
from app.jobs.records import DatabaseUnavailable, Order
from app.metrics import Metrics
from app.pacs.config import PacsConfig, Rule, read_pacs_config
from app.pacs.errors import PacsNotConfigured, PacsTroubleError
from app.pacs.handover import MakeOrder
from app.pacs.installation import Pacs, open_pacs, pacs_running
from app.pacs.returns import MakeObjects
from app.reporting.bundle import unpack
from app.reporting.restored import material_of
from app.reporting.results import DicomKind, dicom_objects
from app.settings import Settings


def order_maker(models: Models) -> MakeOrder:
    """Orders for the rules of the configuration, with these models."""

    def make(rule: Rule, series_uid: str | None) -> Order:
        model = models.model(rule.model)
        return Order(
            model=f"{model.identity.name}:{model.identity.version}",
            model_sha256=model.identity.sha256,
            operating_point=choose_operating_point(model, rule.operating_point).name,
            series_uid=series_uid,
        )

    return make


ObjectMaker = Callable[[Jobs], MakeObjects]
"""Gives the maker of a job's DICOM objects, from where jobs keep their results."""


def stored_objects(jobs: Jobs) -> MakeObjects:
    """A job's DICOM objects, made of what is kept of it: the same UIDs every time."""

    def make(job_id: str, kinds: Sequence[str]) -> list[Dataset]:
        job = jobs.lookup.job(job_id)
        if job.result is None or job.scan_id is None:
            raise PacsTroubleError("The job has no result to be sent.", code="no_result")
        kept = unpack(jobs.store.result(job_id, job.result))
        with jobs.store.scan(job.scan_id) as files:
            whose = jobs.identities.of(job_id)
            report, originals = material_of(kept, files, jobs.settings.read, jobs.settings.temp_dir, whose)
            return dicom_objects(report, originals, cast("Sequence[DicomKind]", kinds))

    return make


def checked_config(settings: Settings, models: Models) -> PacsConfig | None:
    """The configuration that the settings name, or None; what its rules ask for is there.

    Raises
    ------
    PacsConfigInvalid, OptionError
        The file does not fit, or names a model or an operating point that is not there.
    """
    if settings.pacs_config is None:
        return None
    config = read_pacs_config(settings.pacs_config)
    for rule in config.rules:
        order_maker(models)(rule, "")
    for worklist in config.worklist.values():
        order_maker(models)(worklist.as_rule, None)
    return config


@contextmanager
def opened_pacs(jobs: Jobs, models: Models, object_maker: ObjectMaker) -> Iterator[Pacs | None]:
    """The connection that the settings ask for, or None; nothing moves yet.

    Raises
    ------
    PacsConfigInvalid, OptionError
        As `checked_config`.
    """
    config = checked_config(jobs.settings, models)
    if config is None:
        yield None
        return
    with open_pacs(jobs, config, order_maker(models), object_maker(jobs)) as pacs:
        yield pacs


@asynccontextmanager
async def pacs_beside(pacs: Pacs | None, metrics: Metrics, *, wanted: bool) -> AsyncIterator[None]:
    """Keep the connection going in threads of this process."""
    if pacs is None or not wanted:
        yield
        return
    for target in pacs.config.targets:
        metrics.pacs_waiting.labels(target).set_function(partial(_waiting, pacs, target))
    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, pacs_running(pacs))
        try:
            yield
        finally:
            await asyncio.to_thread(stack.close)


def _waiting(pacs: Pacs, target: str) -> float:
    try:
        return pacs.returns.waiting()[target]
    except DatabaseUnavailable:
        return math.nan


def get_pacs(request: Request) -> Pacs:
    """FastAPI dependency.

    Raises
    ------
    PacsNotConfigured
        There is none.
    """
    pacs: Pacs | None = request.app.state.pacs
    if pacs is None:
        raise PacsNotConfigured("This service is not connected to a PACS: LUNGNODULE_PACS_CONFIG names no file.")
    return pacs


PacsDependency = Annotated[Pacs, Depends(get_pacs)]
