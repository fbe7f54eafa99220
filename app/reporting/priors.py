"""One analysis more: the prior first, then the current scan, then the comparison, each told as a stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from app.imaging.errors import ScanError
from app.inference.findings import Findings, OnProgress, Progress
from app.reporting.compared import ComparedFindings

PRIOR_STAGE, COMPARE_STAGE = "prior", "compare"
STAGES = ("read", "lungs", "prepare", "detect", "characterise", "measure")
"""Of one analysis, in order: what the stage ``prior`` is made of."""

Run = Callable[[OnProgress], Findings]


def analyse_with_prior(
    run_prior: Run, run_current: Run, on_progress: OnProgress, *, threads: int = 2
) -> ComparedFindings:
    """Analyse both scans and compare them.

    Parameters
    ----------
    run_prior, run_current
        The two analyses, with one model at one operating point, both keeping their trace.
    on_progress
        Told the stages of the current scan, and ``prior`` and ``compare``; what it raises ends the analysis.
    threads
        For the registration.

    Returns
    -------
    ComparedFindings
        ``timings_s`` has the two stages more, and ``total`` is of everything.

    Raises
    ------
    ScanError
        Of either scan; ``values`` of one about the prior hold ``scan: prior``. `PriorMismatch` where the two do not
        belong together.
    """
    began = time.perf_counter()
    try:
        prior = run_prior(_as_one_stage(on_progress))
    except ScanError as error:
        message = f"The prior cannot be used. {error.message}"
        raise type(error)(message, code=error.code, values={**error.values, "scan": "prior"}) from error
    prior_s = time.perf_counter() - began
    current = run_current(on_progress)
    on_progress(Progress(COMPARE_STAGE, 0.0))
    compare_began = time.perf_counter()
    # Here, as it loads SimpleITK: 110 MiB that a service which compares nothing does not need.
    from app.reporting.comparison import with_comparison  # noqa: PLC0415

    compared = with_comparison(current, prior, threads=threads)
    ended = time.perf_counter()
    on_progress(Progress(COMPARE_STAGE, 1.0))
    own = {stage: seconds for stage, seconds in current.timings_s.items() if stage != "total"}
    seconds = {PRIOR_STAGE: prior_s, **own, COMPARE_STAGE: ended - compare_began, "total": ended - began}
    return replace(compared, timings_s=seconds)


def _as_one_stage(on_progress: OnProgress) -> OnProgress:
    """The prior's stages as parts of one."""

    def told(progress: Progress) -> None:
        done = STAGES.index(progress.stage) if progress.stage in STAGES else 0
        on_progress(Progress(PRIOR_STAGE, (done + progress.fraction) / len(STAGES), progress.stage))

    return told
