"""The heart: one CT in, findings out, each stage timed and reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from app.imaging.acceptance import AcceptanceReport, Notice
from app.imaging.alignment import coarse_chest
from app.imaging.errors import OptionError
from app.imaging.inputs import Source
from app.imaging.lungs import LungMask, coverage_warnings, segment_lungs
from app.imaging.preprocessing import preprocess
from app.imaging.read_options import ReadOptions
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from app.inference.boxed_nodules import NOT_TOLD, boxed_nodules
from app.inference.characterisation import characterise, without_duplicates
from app.inference.detection import detect, max_voxels_within, window_notices
from app.inference.findings import Candidate, Findings, Nodule, OnProgress, OperatingPoint, Progress, Trace
from app.inference.measuring import Chest, measured
from app.inference.model_registry import KnownModel
from app.inference.model_store import LoadedModel

EVERY_CANDIDATE = "every-candidate"
"""The operating point that evaluation runs at; no model names one so."""
NO_MALIGNANCY = "This model does not judge malignancy."
FAINT_PROBABILITY = 0.02
"""Candidates of less are not kept: a seventh of the most sensitive operating point of the shipped model."""
MOST_FAINT = 100


@dataclass(frozen=True)
class AnalysisOptions:
    """What a caller may ask of one analysis.

    Parameters
    ----------
    read
        Which series, limits, repairs.
    operating_point
        Name in the model's manifest; None takes its default.
    least_probability
        Report from this final probability on, whatever the operating point; for evaluation, which needs every
        candidate. The answer then names the operating point `every-candidate`.
    threads
        For resampling. The networks' threads are set when the model is loaded.
    detector_memory_mib
        Memory that a pass of the detector may take, in MiB; larger lungs are cut into tiles, with the same result (but
        see `app.inference.detection.window_notices`).
    detector_max_voxels
        The same bound in voxels, for tests; wins over the memory.
    keep_trace
        Keep what a comparison with another scan needs (`app.inference.findings.Trace`).
    """

    read: ReadOptions = field(default_factory=ReadOptions)
    operating_point: str | None = None
    least_probability: float | None = None
    threads: int = 2
    detector_memory_mib: float | None = None
    detector_max_voxels: int | None = None
    keep_trace: bool = False


def analyse(
    source: Source | Sequence[Source],
    model: LoadedModel,
    options: AnalysisOptions = AnalysisOptions(),
    on_progress: OnProgress | None = None,
) -> Findings:
    """Find the lung nodules of one CT series.

    Parameters
    ----------
    source
        A file, a folder or several files, as `app.imaging.reading.read_ct` takes them.
    model
        From `app.inference.model_store.load_model`.
    options
        Series, operating point, threads.
    on_progress
        Told each step from the calling thread; what it raises ends the analysis.

    Returns
    -------
    Findings
        Nodules at or above the operating point by falling probability, ``nodule-1`` first.

    Raises
    ------
    ScanError
        The scan cannot be used; see `app.imaging.errors`.
    OptionError
        ``unknown_operating_point``, with the names there are.
    ModelError
        ``inference_failed`` when a network cannot be run.
    """
    operating_point = choose_operating_point(model, options.operating_point)
    clock = _Clock(on_progress)
    with clock.stage("read") as step:
        volume, acceptance = read_ct(source, replace(options.read, on_progress=lambda fraction: step(fraction, "")))
    return _analyse(volume, acceptance, model, replace(options, operating_point=operating_point.name), clock)


def analyse_volume(
    volume: CtVolume,
    acceptance: AcceptanceReport,
    model: LoadedModel,
    options: AnalysisOptions = AnalysisOptions(),
    on_progress: OnProgress | None = None,
) -> Findings:
    """`analyse` for a scan that has been read; ``timings_s`` has no ``read``."""
    return _analyse(volume, acceptance, model, options, _Clock(on_progress))


def choose_operating_point(model: LoadedModel | KnownModel, name: str | None) -> OperatingPoint:
    """The operating point of that name, or the model's default.

    Raises
    ------
    OptionError
        ``unknown_operating_point``; ``values`` hold the names there are.
    """
    manifest = model.manifest
    chosen = manifest.default_operating_point if name is None else name
    if chosen not in manifest.operating_points:
        available = sorted(manifest.operating_points)
        raise OptionError(
            f"{manifest.name} {manifest.version} has the operating points {', '.join(available)}; name one of them.",
            code="unknown_operating_point",
            values={"available": available},
        )
    return OperatingPoint(chosen, manifest.operating_points[chosen].threshold)


def _analyse(
    volume: CtVolume, acceptance: AcceptanceReport, model: LoadedModel, options: AnalysisOptions, clock: _Clock
) -> Findings:
    operating_point = choose_operating_point(model, options.operating_point)
    if options.least_probability is not None:
        operating_point = OperatingPoint(EVERY_CANDIDATE, options.least_probability)
    with clock.stage("lungs"):
        lungs = segment_lungs(volume)
    with clock.stage("prepare"):
        prepared = preprocess(volume, lungs, model.manifest.preprocessing, threads=options.threads)
    with clock.stage("detect") as step:
        max_voxels = options.detector_max_voxels or max_voxels_within(model, options.detector_memory_mib)
        candidates = detect(prepared, model, step, max_voxels=max_voxels)
    del prepared  # the largest array; not needed while crops are read from the scan
    coverage = coverage_warnings(lungs, volume)
    chest = Chest(volume, lungs, whole_lungs=not coverage)
    described = _described(candidates, chest, model, operating_point, clock)
    return Findings(
        nodules=described.nodules,
        acceptance=acceptance,
        identity=volume.identity,
        grid=volume.grid,
        model=model.identity,
        execution_provider=model.execution_provider,
        operating_point=operating_point,
        malignancy_meaning=_malignancy_meaning(model),
        timings_s=clock.timings_s(),
        warnings=(*model.notices, *coverage, *window_notices(model, max_voxels), *described.notices),
        precision=model.precision,
        patient=volume.patient,
        trace=_trace(volume, lungs, described.below, model, operating_point) if options.keep_trace else None,
        faint=_faint(described.below, described.nodules),
        faint_probability=FAINT_PROBABILITY,
    )


def _malignancy_meaning(model: LoadedModel) -> str:
    manifest = model.manifest
    if manifest.malignancy is not None:
        return manifest.malignancy.meaning
    return NOT_TOLD if manifest.characteriser is None else NO_MALIGNANCY


def _faint(below: Sequence[Candidate], nodules: Sequence[Nodule]) -> tuple[Candidate, ...]:
    """What a reader may want to see beside the nodules: each place once, and none that is in a nodule."""
    likely = [candidate for candidate in below if candidate.probability >= FAINT_PROBABILITY]
    places = [*(nodule.center_lps_mm for nodule in nodules), *(candidate.center_lps_mm for candidate in likely)]
    diameters_mm = [*(nodule.diameter_mm for nodule in nodules), *(candidate.diameter_mm for candidate in likely)]
    apart = without_duplicates([*(None for _ in nodules), *likely], places, [mm / 2 for mm in diameters_mm])
    return tuple(candidate for candidate in apart if candidate is not None)[:MOST_FAINT]


@dataclass(frozen=True)
class _Described:
    """Nodules by falling probability, what fell below the operating point, and what could not be done for them."""

    nodules: tuple[Nodule, ...]
    below: Sequence[Candidate]
    notices: tuple[Notice, ...] = ()


def _described(
    candidates: Sequence[Candidate], chest: Chest, model: LoadedModel, point: OperatingPoint, clock: _Clock
) -> _Described:
    """What the second stage says of the candidates, or without one what their boxes say."""
    if model.manifest.characteriser is None:
        with clock.stage("measure"):
            nodules = boxed_nodules(candidates, point.threshold, chest)
            return _Described(nodules, [c for c in candidates if c.probability < point.threshold])
    malignancy = model.manifest.malignancy
    with clock.stage("characterise") as step:
        found = characterise(chest.volume, candidates, model, point.threshold, step)
    with clock.stage("measure"):
        nodules = tuple(
            measured(f"nodule-{number}", nodule, chest, malignancy.threshold if malignancy else 1.0)
            for number, nodule in enumerate(found.nodules, start=1)
        )
    return _Described(nodules, found.below, found.notices)


def _trace(
    volume: CtVolume, lungs: LungMask, below: Sequence[Candidate], model: LoadedModel, operating_point: OperatingPoint
) -> Trace:
    """Faint is what the model's most sensitive operating point would report, or half of the one in force."""
    thresholds = [point.threshold for point in model.manifest.operating_points.values()]
    floor = min(operating_point.threshold / 2, *thresholds)
    faint = tuple(candidate for candidate in below if candidate.probability >= floor)
    return Trace(coarse_chest(volume, lungs), volume.visit, faint, floor)


class _Clock:
    """Times stages and passes their progress on."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """Time a stage; yields the function that reports its progress."""

        def step(fraction: float, detail: str) -> None:
            if self._on_progress is not None:
                self._on_progress(Progress(name, fraction, detail))

        started = time.perf_counter()
        step(0.0, "")
        yield step
        self._seconds[name] = time.perf_counter() - started
        step(1.0, "")

    def timings_s(self) -> dict[str, float]:
        """Seconds by stage, in order, and ``total`` since the clock was made."""
        return {**self._seconds, "total": time.perf_counter() - self._started}
