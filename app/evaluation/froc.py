"""LUNA16's FROC and CPM, by the rules of the official script, on any submission CSV.

The rules (luna16.grand-challenge.org/Evaluation; the official `noduleCADEvaluationLUNA16.py`):

1.  A mark hits a finding when their squared distance is smaller, not equal, than the squared radius. A diameter of -1
    counts as 10 mm.
2.  More than 100 marks in a scan: the 101st highest probability is the threshold, marks strictly above it stay.
3.  Several marks in one nodule: the highest probability counts, the others are ignored.
4.  A mark in an irrelevant finding and in no nodule is ignored. Every other mark is a false positive.
5.  A missed nodule stays in the denominator of the sensitivity. Scans without marks stay in the denominator of the
    false positives per scan.
6.  The curve runs from (0, 0) through one point for each distinct probability and is read by linear interpolation at
    1/8, 1/4, 1/2, 1, 2, 4, 8 false positives per scan; beyond its end it stays level. CPM is their mean.
7.  The band is the percentile interval of 1,000 bootstraps over scans, drawn and rounded as the script does after
    ``numpy.random.seed(seed)`` (float32 curves at 10,000 rates), so that its files agree too.

Where the script fails or answers NaN (no mark at all, no hit at all) the sensitivity here is 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.estimates import Estimate, percentile_interval
from app.evaluation.reference import Annotation, Luna16Error, Point, Reference

FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FrocRules:
    """What of the evaluation may be chosen; the defaults are LUNA16's."""

    max_marks_per_scan: int = 100
    n_bootstraps: int = 1000
    confidence: float = 0.95
    seed: int = 0


LUNA16_RULES = FrocRules()


@dataclass(frozen=True)
class Mark:
    """One row of a submission."""

    series_uid: str
    center_lps_mm: Point
    probability: float


@dataclass(frozen=True)
class NoduleOutcome:
    """A nodule of the reference and the highest probability that hit it; None where it was missed."""

    nodule: Annotation
    probability: float | None


@dataclass(frozen=True)
class ScanOutcome:
    """What one scan contributes."""

    series_uid: str
    nodules: tuple[NoduleOutcome, ...]
    false_positives: tuple[Mark, ...]
    n_marks: int
    n_irrelevant: int
    n_repeated: int
    max_probability: float
    """Highest probability of all its marks; -inf without any. The scan-level score."""


@dataclass(frozen=True)
class Curve:
    """Operating points by falling threshold; the first is (0, 0)."""

    fp_per_scan: FloatArray
    sensitivity: FloatArray
    threshold: FloatArray

    def sensitivity_at(self, fp_per_scan: float | FloatArray) -> FloatArray:
        """Linear interpolation, level beyond the last point."""
        return np.asarray(np.interp(fp_per_scan, self.fp_per_scan, self.sensitivity))

    def fp_per_scan_at(self, sensitivity: float) -> float:
        """Fewest false positives per scan at which the curve reaches a sensitivity; inf where it never does."""
        reached = np.flatnonzero(self.sensitivity >= sensitivity)
        if reached.size == 0:
            return math.inf
        last = int(reached[0])
        if last == 0:
            return 0.0
        points = slice(last - 1, last + 1)
        return float(np.interp(sensitivity, self.sensitivity[points], self.fp_per_scan[points]))

    def threshold_at(self, fp_per_scan: float) -> float:
        """Lowest threshold that keeps to a rate of false positives; marks at or above it count. inf for none."""
        return float(self.threshold[np.flatnonzero(self.fp_per_scan <= fp_per_scan)[-1]])


@dataclass(frozen=True)
class Band:
    """Bootstrap mean and interval of the sensitivity at a grid of false-positive rates."""

    fp_per_scan: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class FrocResult:
    """The evaluation of one submission."""

    scans: tuple[ScanOutcome, ...]
    curve: Curve
    band: Band | None
    sensitivities: dict[float, Estimate]
    """At the seven rates; n counts nodules."""
    cpm: Estimate
    """Mean of the seven; n counts nodules."""

    @property
    def n_nodules(self) -> int:
        """Nodules in the reference."""
        return sum(len(scan.nodules) for scan in self.scans)

    @property
    def n_hits(self) -> int:
        """Nodules hit by at least one mark that was kept."""
        return sum(outcome.probability is not None for scan in self.scans for outcome in scan.nodules)

    @property
    def n_false_positives(self) -> int:
        """Marks that hit nothing, at the lowest threshold."""
        return sum(len(scan.false_positives) for scan in self.scans)


def froc(reference: Reference, marks: Iterable[Mark], rules: FrocRules = LUNA16_RULES) -> FrocResult:
    """FROC curve, CPM and bootstrap band. Marks in series that the reference does not count are left out.

    Raises
    ------
    Luna16Error
        If the reference has no nodule: sensitivity is not defined.
    """
    if reference.n_nodules == 0:
        raise Luna16Error("the reference has no nodule in the series that are counted; sensitivity is not defined")
    scans = scan_outcomes(reference, marks, rules)
    events = Events.of(scans)
    curve = events.curve(np.ones(len(scans), dtype=np.int64))
    band, at_rates = _bootstrap(events, rules) if rules.n_bootstraps else (None, np.empty((0, len(FP_RATES))))
    n = reference.n_nodules
    values = curve.sensitivity_at(np.array(FP_RATES))
    sensitivities = {
        rate: Estimate(float(value), *percentile_interval(at_rates[:, index], rules.confidence), n)
        for index, (rate, value) in enumerate(zip(FP_RATES, values, strict=True))
    }
    cpm = Estimate(float(values.mean()), *percentile_interval(at_rates.mean(axis=1), rules.confidence), n)
    return FrocResult(scans, curve, band, sensitivities, cpm)


def scan_outcomes(
    reference: Reference, marks: Iterable[Mark], rules: FrocRules = LUNA16_RULES
) -> tuple[ScanOutcome, ...]:
    """What each scan contributes: hits, misses and false positives. Defined for scans without nodules too."""
    marks_of_scan: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        marks_of_scan[mark.series_uid].append(mark)
    return tuple(
        _scan_outcome(uid, marks_of_scan.get(uid, []), reference, rules.max_marks_per_scan)
        for uid in reference.series_uids
    )


@dataclass(frozen=True)
class Events:
    """Hits and false positives by falling probability: all that a curve needs, ready to be resampled by scan."""

    scan: NDArray[np.intp]
    is_hit: NDArray[np.bool_]
    probability: FloatArray
    nodules_per_scan: NDArray[np.int64]

    @classmethod
    def of(cls, scans: Sequence[ScanOutcome]) -> Events:
        """Collect and sort the events of scans."""
        rows = [
            (index, is_hit, probability)
            for index, scan in enumerate(scans)
            for is_hit, probability in _scan_events(scan)
        ]
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        table = table[np.argsort(-table[:, 2], kind="stable")]
        return cls(
            table[:, 0].astype(np.intp),
            table[:, 1].astype(bool),
            table[:, 2],
            np.array([len(scan.nodules) for scan in scans], dtype=np.int64),
        )

    def curve(self, times_drawn: NDArray[np.int64]) -> Curve:
        """The curve of a draw in which scan i occurs ``times_drawn[i]`` times; NaN where it holds no nodule."""
        weight = times_drawn[self.scan]
        drawn = weight > 0
        weight, is_hit, probability = weight[drawn], self.is_hit[drawn], self.probability[drawn]
        ends = np.flatnonzero(np.diff(probability, append=np.nan) != 0)
        hits = np.cumsum(weight * is_hit)[ends].astype(np.float64)
        false = np.cumsum(weight * ~is_hit)[ends].astype(np.float64)
        hits, false, threshold = _without_midpoints(hits, false, probability[ends])
        # In this order of operations and no other: at rates such as 111 / 888 the curve may be vertical, and one
        # rounding more would read the other end of the step than the official script does.
        n_scans, n_nodules = float(times_drawn.sum()), float((self.nodules_per_scan * times_drawn).sum())
        false_per_scan = false / (false[-1] or 1.0) * false[-1] / n_scans if false.size else false
        found = hits / (hits[-1] or 1.0) * hits[-1] if hits.size else hits
        sensitivity = found / n_nodules if n_nodules else np.full_like(found, np.nan)
        start = 0.0 if n_nodules else np.nan
        return Curve(
            np.concatenate([[0.0], false_per_scan]),
            np.concatenate([[start], sensitivity]),
            np.concatenate([[np.inf], threshold]),
        )


def draws_of_scans(n_scans: int, rules: FrocRules) -> Iterator[NDArray[np.int64]]:
    """How often each scan is drawn, for each bootstrap, as the official script draws after ``numpy.random.seed``."""
    generator = np.random.RandomState(rules.seed)
    for _ in range(rules.n_bootstraps):
        yield np.bincount(generator.randint(n_scans, size=n_scans), minlength=n_scans)


def _bootstrap(events: Events, rules: FrocRules) -> tuple[Band, FloatArray]:
    """The band, and the sensitivity of each draw at the seven rates (draws, 7)."""
    grid = np.linspace(FP_RATES[0], FP_RATES[-1], num=10_000)
    n_scans = len(events.nodules_per_scan)
    curves = [events.curve(times) for times in draws_of_scans(n_scans, rules)]
    at_rates = np.array([curve.sensitivity_at(np.array(FP_RATES)) for curve in curves])
    # float32 and these two order statistics, because the script's published bands carry their rounding.
    sampled = np.array([curve.sensitivity_at(grid).astype(np.float32) for curve in curves])
    ordered = np.ascontiguousarray(np.sort(sampled[~np.isnan(sampled[:, 0])], axis=0).T)
    tail, n = (1.0 - rules.confidence) / 2.0, ordered.shape[1]
    low, high = math.floor(tail * n), min(math.floor((1.0 - tail) * n), n - 1)
    mean = ordered.mean(axis=1, dtype=np.float32)
    band = Band(grid, *(column.astype(np.float64) for column in (mean, ordered[:, low], ordered[:, high])))
    return band, at_rates


def _scan_outcome(series_uid: str, marks: list[Mark], reference: Reference, max_marks: int) -> ScanOutcome:
    kept = most_suspicious(marks, max_marks)
    nodules = reference.nodules.get(series_uid, ())
    in_nodule = _hits(nodules, kept)
    in_irrelevant = _hits(reference.irrelevant.get(series_uid, ()), kept)
    probability = np.array([mark.probability for mark in kept], dtype=np.float64)
    outcomes = tuple(
        NoduleOutcome(nodule, float(probability[hit].max()) if hit.any() else None)
        for nodule, hit in zip(nodules, in_nodule, strict=True)
    )
    on_nodule = np.asarray(in_nodule.any(axis=0))
    on_irrelevant = np.asarray(in_irrelevant.any(axis=0))
    return ScanOutcome(
        series_uid=series_uid,
        nodules=outcomes,
        false_positives=tuple(
            mark for mark, hit in zip(kept, (on_nodule | on_irrelevant).tolist(), strict=True) if not hit
        ),
        n_marks=len(marks),
        n_irrelevant=int((on_irrelevant & ~on_nodule).sum()),
        n_repeated=int(np.clip(in_nodule.sum(axis=1) - 1, 0, None).sum()),
        max_probability=max((mark.probability for mark in marks), default=-math.inf),
    )


def most_suspicious(marks: list[Mark], max_marks: int) -> list[Mark]:
    """Marks strictly above the (max_marks + 1)-th highest probability, where there are more than ``max_marks``."""
    if len(marks) <= max_marks:
        return marks
    threshold = sorted((mark.probability for mark in marks), reverse=True)[max_marks]
    return [mark for mark in marks if mark.probability > threshold]


def _hits(findings: Sequence[Annotation], marks: Sequence[Mark]) -> NDArray[np.bool_]:
    """(findings, marks) whether the mark lies strictly inside the finding's radius."""
    centers = np.array([finding.center_lps_mm for finding in findings]).reshape(-1, 1, 3)
    radius = np.array([finding.hit_radius_mm for finding in findings]).reshape(-1, 1)
    offset = centers - np.array([mark.center_lps_mm for mark in marks]).reshape(1, -1, 3)
    return np.asarray(offset[..., 0] ** 2 + offset[..., 1] ** 2 + offset[..., 2] ** 2 < radius**2)


def _scan_events(scan: ScanOutcome) -> Iterator[tuple[bool, float]]:
    for outcome in scan.nodules:
        if outcome.probability is not None:
            yield True, outcome.probability
    for mark in scan.false_positives:
        yield False, mark.probability


def _without_midpoints(
    hits: FloatArray, false: FloatArray, threshold: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Drop the points in the middle of two equal steps, as scikit-learn's `roc_curve` does for the script."""
    if hits.size <= 2:
        return hits, false, threshold
    bends = (np.diff(false, 2) != 0) | (np.diff(hits, 2) != 0)
    keep = np.concatenate([[True], bends, [True]])
    return hits[keep], false[keep], threshold[keep]
