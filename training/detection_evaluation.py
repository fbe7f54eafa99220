"""The exported model, run by the service's own pipeline on scans with known nodules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FrocResult, Mark, ScanOutcome, froc, scan_outcomes
from app.evaluation.reference import Annotation, Reference
from app.imaging.acceptance import AcceptanceReport, SeriesSummary
from app.imaging.volume import CtVolume
from app.inference.findings import Findings
from app.inference.model_store import LoadedModel
from app.inference.pipeline import AnalysisOptions, analyse_volume
from training.inserted_scans import TrueNodule, inserted_scan
from training.lung_background import Background, Finding
from training.metrics import proportion
from training.nodule_bank import NoduleBank

EVERY_CANDIDATE = "every-candidate"
"""Operating point of an evaluation manifest that reports all candidates."""
SIZE_BANDS_MM = ((3.0, 4.0), (4.0, 6.0), (6.0, 8.0), (8.0, 15.0), (15.0, 40.0))


@dataclass(frozen=True)
class ScanTrial:
    """One scan that was analysed: what is in it, what to ignore, what was said."""

    name: str
    truths: tuple[TrueNodule, ...]
    irrelevant: tuple[Finding, ...]
    marks: tuple[Mark, ...]


def try_inserted(
    name: str,
    volume: CtVolume,
    background: Background,
    bank: NoduleBank,
    own_findings: Sequence[Finding],
    model: LoadedModel,
    *,
    populations: int,
    nodules_each: int,
    seed: int,
    own_size: bool = False,
) -> list[ScanTrial]:
    """Analyse the scan with several independent populations of inserted nodules."""
    trials = []
    for number in range(populations):
        rng = np.random.default_rng((seed, number))
        scan, truths = inserted_scan(volume, background, bank, nodules_each, rng, own_size=own_size)
        trials.append(try_scan(f"{name}-{number}", scan, truths, own_findings, model))
    return trials


def try_scan(
    name: str,
    volume: CtVolume,
    truths: Iterable[TrueNodule],
    own_findings: Iterable[Finding],
    model: LoadedModel,
) -> ScanTrial:
    """Analyse one scan; every candidate is a mark."""
    findings = analyse_volume(volume, _no_acceptance(volume), model, AnalysisOptions(operating_point=EVERY_CANDIDATE))
    return ScanTrial(name, tuple(truths), tuple(own_findings), marks_of(name, findings))


def marks_of(name: str, findings: Findings) -> tuple[Mark, ...]:
    """Findings as marks of a submission."""
    return tuple(Mark(name, nodule.center_lps_mm, nodule.probability) for nodule in findings.nodules)


def froc_of(trials: Sequence[ScanTrial]) -> FrocResult:
    """LUNA16's FROC over the trials.

    Raises
    ------
    Luna16Error
        If none of them holds a nodule.
    """
    return froc(_reference(trials), [mark for trial in trials for mark in trial.marks])


def outcomes_of(trials: Sequence[ScanTrial]) -> tuple[ScanOutcome, ...]:
    """Hits, misses and false marks of each trial by LUNA16's rules, whether or not it holds a nodule."""
    return scan_outcomes(_reference(trials), [mark for trial in trials for mark in trial.marks])


def found_at(trials: Sequence[ScanTrial], threshold: float) -> dict[str, Estimate]:
    """Share of inserted nodules found at a threshold, overall, by size and by kind; and false positives per scan."""
    outcomes = [(n.nodule, n.probability) for scan in outcomes_of(trials) for n in scan.nodules]
    truth_of = {(t.center_lps_mm): t for trial in trials for t in trial.truths}
    rows = [(truth_of[a.center_lps_mm], p is not None and p >= threshold) for a, p in outcomes]
    figures = {"sensitivity": _share(hit for _, hit in rows)}
    for low, high in SIZE_BANDS_MM:
        figures[f"sensitivity_{low:g}_to_{high:g}_mm"] = _share(hit for t, hit in rows if low <= t.diameter_mm < high)
    for kind in sorted({t.kind for t, _ in rows}):
        figures[f"sensitivity_{kind}"] = _share(hit for t, hit in rows if t.kind == kind)
    return figures


def false_positives_at(trials: Sequence[ScanTrial], threshold: float) -> list[int]:
    """False marks at or above the threshold in each trial."""
    return [sum(m.probability >= threshold for m in scan.false_positives) for scan in outcomes_of(trials)]


def _reference(trials: Sequence[ScanTrial]) -> Reference:
    nodules = {t.name: tuple(Annotation(t.name, n.center_lps_mm, n.diameter_mm) for n in t.truths) for t in trials}
    irrelevant = {
        t.name: tuple(Annotation(t.name, f.center_lps_mm, f.diameter_mm) for f in t.irrelevant) for t in trials
    }
    return Reference(tuple(trial.name for trial in trials), nodules, irrelevant)


def _share(hits: Iterable[bool]) -> Estimate:
    listed = list(hits)
    return proportion(sum(listed), len(listed))


def _no_acceptance(volume: CtVolume) -> AcceptanceReport:
    return AcceptanceReport("dicom", 0, (), SeriesSummary(None, "CT", volume.hu.shape[0]))
