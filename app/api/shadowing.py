"""Shadow mode, wired: which model, and how a request's or a job's scan is kept for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.api.model_choice import called, find_wanted
from app.api.service import Analyse
from app.imaging.inputs import InputFile
from app.inference.findings import Findings, OnProgress
from app.inference.model_registry import ModelRegistry
from app.inference.pipeline import AnalysisOptions
from app.jobs.shadow import Again, Shadow, ShadowMetrics, running_shadow
from app.metrics import Metrics
from app.settings import Settings

Turn = Callable[[], AbstractContextManager[None]]


@contextmanager
def shadow_beside(
    settings: Settings,
    models: ModelRegistry,
    analyse: Analyse,
    metrics: Metrics,
    *,
    turn: Turn,
    busy: Callable[[], bool],
) -> Iterator[Shadow | None]:
    """The shadow of the settings, or none.

    Raises
    ------
    ModelError
        The store does not hold the model that is named.
    """
    if settings.shadow_model is None or settings.worker_concurrency == 0:
        yield None
        return
    known = find_wanted(models, settings.shadow_model)

    def again(files: Sequence[InputFile], options: AnalysisOptions, on_progress: OnProgress) -> Findings:
        with models.lease(known) as loaded:
            return analyse(files, loaded, options, on_progress)

    (name,) = called([known.identity])
    with running_shadow(Shadow(name, again, turn, busy, ShadowMetrics(metrics.registry))) as shadow:
        yield shadow


def offer_upload(
    shadow: Shadow, folder: Path, files: Sequence[InputFile], options: AnalysisOptions, findings: Findings
) -> None:
    """Take a request's folder over before it is removed; the shadow removes it."""
    kept = folder.with_name(f"{folder.name}-shadow")
    folder.rename(kept)
    moved = [replace(file, path=kept / file.path.relative_to(folder)) for file in files]
    read = replace(options.read, scratch_root=kept)
    again = replace(options, operating_point=None, read=read)
    shadow.offer(Again(lambda: nullcontext(moved), again, findings, partial(shutil.rmtree, kept, ignore_errors=True)))
