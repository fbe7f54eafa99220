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

from app.api.problems import AnalysisTimeout, NotReady
from app.api.waiting_line import ClientHungUp, WaitingLine
from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.inference.findings import Findings, OnProgress, Progress
from app.inference.model_store import LoadedModel, find_model, load_model, warm_up
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions
from app.metrics import Metrics
from app.multipart import UploadLimits
from app.settings import Settings
from app.tracing import Tracing
from app.uploads import full_disk_refused

Analyse = Callable[[Sequence[InputFile], LoadedModel, AnalysisOptions, OnProgress], Findings]
LoadModels = Callable[[Settings], tuple[LoadedModel, ...]]


@dataclass(frozen=True)
class Service:
    """Everything a handler needs; nothing of it lives in a module."""

    settings: Settings
    models: tuple[LoadedModel, ...]
    """The first is the default."""
    line: WaitingLine
    metrics: Metrics
    uploads: Path
    """Where each request gets a folder of its own."""
    analyse: Analyse
    draining: threading.Event = field(default_factory=threading.Event)
    """Set when the process is to end."""
    tracing: Tracing = field(default_factory=Tracing)

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

    def model(self, wanted: str | None) -> LoadedModel:
        """The loaded model called ``name`` or ``name:version``; without a name, the default.

        Raises
        ------
        OptionError
            ``unknown_model``, with those that are loaded.
        """
        return named_model(self.models, wanted)

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
        self, files: Sequence[InputFile], model: LoadedModel, options: AnalysisOptions
    ) -> Callable[[threading.Event], Findings]:
        """One analysis as blocking work that ends early when the client is gone or the time is up."""
        limit_s = self.settings.analysis_timeout_s

        def run(abandoned: threading.Event) -> Findings:
            deadline = time.monotonic() + limit_s

            def on_progress(_progress: Progress) -> None:
                if abandoned.is_set():
                    raise ClientHungUp
                if time.monotonic() > deadline:
                    raise AnalysisTimeout(f"The analysis took more than {limit_s:g} s.", values={"limit_s": limit_s})

            with full_disk_refused():
                return self.analyse(files, model, options, on_progress)

        return run

    def threads(self) -> int:
        """Threads for one analysis."""
        return threads_for(self.settings)

    def free_disk_bytes(self) -> int:
        """Free space where uploads are written."""
        return shutil.disk_usage(self.uploads).free


def threads_for(settings: Settings) -> int:
    """Threads for one analysis."""
    if settings.threads:
        return settings.threads
    # Not every system has the former; the latter counts cores that a container may not use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def named_model(models: Sequence[LoadedModel], wanted: str | None) -> LoadedModel:
    """The model called ``name`` or ``name:version``; without a name, the first.

    Raises
    ------
    OptionError
        ``unknown_model``, with those that are loaded.
    """
    for model in models:
        identity = model.identity
        if wanted in (None, identity.name, f"{identity.name}:{identity.version}"):
            return model
    available = [f"{model.identity.name}:{model.identity.version}" for model in models]
    raise OptionError(
        f"The models here are {', '.join(available)}; name one of them.",
        code="unknown_model",
        values={"available": available},
    )


def load_models(settings: Settings) -> tuple[LoadedModel, ...]:
    """Find, verify, open and warm up every model that the settings name.

    Raises
    ------
    ModelError
        For the first one that cannot be used; names the file.
    """
    session = SessionOptions(
        device=settings.device,
        threads=settings.threads,
        require_gpu=settings.require_gpu,
        tensorrt_cache=settings.tensorrt_cache,
    )
    loaded = []
    for wanted in settings.models:
        name, _, version = wanted.partition(":")
        folder = find_model(settings.model_store, name, version or None)
        model = load_model(folder.path, session, settings.precision)
        warm_up(model)
        loaded.append(model)
    return tuple(loaded)


def get_service(request: Request) -> Service:
    """FastAPI dependency."""
    service: Service = request.app.state.service
    return service


ServiceDependency = Annotated[Service, Depends(get_service)]
