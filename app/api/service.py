"""What the handlers share: settings, models, the line before the device, metrics. Made once, by the app factory."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from app.api.errors import AnalysisTimeout, NotReady
from app.api.model_choice import IntakeOnly, Models
from app.api.waiting_line import ClientHungUp, WaitingLine
from app.disk_faults import full_disk_refused
from app.imaging.inputs import InputFile
from app.inference.findings import Findings, OnProgress, Progress
from app.inference.model_registry import KnownModel
from app.inference.model_store import LoadedModel
from app.inference.pipeline import AnalysisOptions
from app.jobs.shadow import Shadow
from app.metrics import Metrics
from app.multipart import UploadLimits
from app.settings import Settings
from app.tracing import Tracing

Analyse = Callable[[Sequence[InputFile], LoadedModel, AnalysisOptions, OnProgress], Findings]


@dataclass(frozen=True)
class Service:
    """Everything a handler needs; nothing of it lives in a module."""

    settings: Settings
    models: Models
    line: WaitingLine
    metrics: Metrics
    uploads: Path
    """Where each request gets a folder of its own."""
    analyse: Analyse
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when the process is to end."""
    tracing: Tracing = field(default_factory=Tracing)
    shadow: Shadow | None = None
    """A second model that only counts; None without one."""

    def refuse_when_draining(self) -> None:
        """Take no new work while the process ends.

        Raises
        ------
        NotReady
            ``draining``.
        """
        if self.draining.is_set():
            raise NotReady(
                "The service is stopping and takes no new work.", code="draining", values={"retry_after_s": 5}
            )

    @property
    def intake_only(self) -> bool:
        """Whether analyses are left to workers elsewhere."""
        return self.settings.worker_concurrency == 0

    def refuse_when_intake_only(self) -> None:
        """Analyse nothing where no model is to be in memory.

        Raises
        ------
        IntakeOnly
            The settings say so.
        """
        if self.intake_only:
            raise IntakeOnly(
                "This service only takes jobs in (LUNGNODULE_WORKER_CONCURRENCY is 0). POST the scan to /v1/jobs."
            )

    def model(self, wanted: str | None) -> KnownModel:
        """The model called ``name`` or ``name:version``; without a name, the one in force. Blocks.

        Raises
        ------
        OptionError, ModelError
            As `Models.model`.
        """
        return self.models.model(wanted)

    def upload_limits(self) -> UploadLimits:
        """What one request may send."""
        settings = self.settings
        return UploadLimits(
            request_bytes=settings.max_request_bytes,
            files=settings.max_files,
            seconds=settings.upload_timeout_s,
            grace_s=settings.upload_grace_s,
            bytes_per_s=settings.min_upload_bytes_per_s,
        )

    def work(
        self, files: Sequence[InputFile], model: KnownModel, options: AnalysisOptions
    ) -> Callable[[threading.Event], Findings]:
        """One analysis as blocking work that ends early when the client is gone or the time is up.

        It holds the model while it runs, whatever is activated meanwhile, and loads it where it is not in memory.
        """
        limit_s = self.settings.analysis_timeout_s

        def run(abandoned: threading.Event) -> Findings:
            deadline = time.monotonic() + limit_s

            def on_progress(_progress: Progress) -> None:
                if abandoned.is_set():
                    raise ClientHungUp
                if time.monotonic() > deadline:
                    raise AnalysisTimeout(f"The analysis took more than {limit_s:g} s.", values={"limit_s": limit_s})

            with self.models.registry.lease(model) as loaded, full_disk_refused():
                return self.analyse(files, loaded, options, on_progress)

        return run

    def threads(self) -> int:
        """Threads for one analysis."""
        return threads_for(self.settings)

    def free_disk_bytes(self) -> int:
        """Free space where uploads are written."""
        return shutil.disk_usage(self.uploads).free

    def uploads_are_read_only(self) -> bool:
        """Whether nothing can be written there, however much is free."""
        return bool(os.statvfs(self.uploads).f_flag & os.ST_RDONLY)


def threads_for(settings: Settings) -> int:
    """Threads for one analysis."""
    if settings.threads:
        return settings.threads
    # Not every system has the former; the latter counts cores that a container may not use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_service(request: Request) -> Service:
    """FastAPI dependency."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]
