"""Sections of the evaluation's report on detection: inserted nodules, whole scans, scans as they were acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FP_RATES, FrocResult
from app.evaluation.node21 import node21_score
from training.detection_evaluation import SIZE_BANDS_MM, ScanTrial, found_at, froc_of, outcomes_of
from training.evaluate_report import Picture, Section, Table, estimates_table
from training.evaluation_result import Evaluation
from training.lung_evaluation import LungTrials
from training.mark_pictures import IRRELEVANT, what_is_marked
from training.plots import froc_plot, sensitivity_plot

AT_FP_PER_SCAN = 1.0
NODE21 = (
    "NODE21 is scored on 2-D chest X-rays; on CT this is an adaptation. An image is a scan, its score the highest "
    "probability of its marks, a hit is LUNA16's, and the combined score is 0.75 AUROC + 0.25 sensitivity at 0.25 "
    'FP/scan. "FROC25%" is read both ways: sensitivity at 0.25 FP/scan, and FP/scan at 25 % sensitivity.'
)


@dataclass(frozen=True)
class TriedScans:
    """Scans that are scored together."""

    name: str
    trials: tuple[ScanTrial, ...]
    froc: FrocResult | None
    """None where no scan holds a nodule."""


def inserted_scans(evaluation: Evaluation) -> tuple[TriedScans, ...]:
    """Scans with inserted nodules: those of the fold that ships and, where there are others, of all folds together."""
    tried = [_tried(f"fold {evaluation.fold}, which ships", evaluation.lungs[evaluation.fold].inserted)]
    if len(evaluation.lungs) > 1:
        everyone = [trial for lungs in evaluation.lungs.values() for trial in lungs.inserted]
        tried.append(_tried(f"all {len(evaluation.lungs)} folds", everyone))
    return tuple(tried)


def acquired_scans(evaluation: Evaluation) -> TriedScans:
    """Every scan as it was acquired."""
    trials = [trial for lungs in evaluation.lungs.values() for trial in lungs.acquired]
    return _tried(f"the {len(trials)} scans as acquired, each by the networks that never saw it", trials)


def detection_section(inserted: Sequence[TriedScans]) -> Section:
    """Nodules of held-out patients inserted into held-out lungs: FROC, and sensitivity by size and kind."""
    tables: list[Table] = []
    bars: list[Picture] = []
    curves, counts = {}, []
    for tried in inserted:
        if tried.froc is None:
            continue
        name, result = tried.name, tried.froc
        found = found_at(tried.trials, result.curve.threshold_at(AT_FP_PER_SCAN))
        by_size, by_kind = _by_size(found), _by_kind(found, tried.trials)
        rates = {f"{rate:g} FP/scan": result.sensitivities[rate] for rate in FP_RATES}
        curves[name] = (result.curve, result.band)
        counts.append(_counts(name, result))
        tables += [
            estimates_table(f"Sensitivity, {name}", rates | {"CPM (mean of the seven)": result.cpm}),
            estimates_table(f"Sensitivity by diameter (mm) at {AT_FP_PER_SCAN:g} FP/scan, {name}", by_size),
            estimates_table(f"Sensitivity by kind at {AT_FP_PER_SCAN:g} FP/scan, {name}", by_kind),
        ]
        bars += [
            Picture(sensitivity_plot(by_size, "Diameter (mm)"), f"Sensitivity by diameter at 1 FP/scan, {name}."),
            Picture(sensitivity_plot(by_kind, "Kind of nodule"), f"Sensitivity by kind at 1 FP/scan, {name}."),
        ]
    text = (
        "Real nodules of held-out patients, at their own sizes and of the kind that LUNA16 annotates, put into lungs "
        "that the fold's networks never saw, and the scans analysed by the service's own pipeline, scored by LUNA16's "
        "rules. Copies of one scan share its lungs, so the intervals say nothing of other lungs."
    )
    caption = "FROC of inserted nodules; the band is the 95 % interval of 1,000 bootstraps over scans."
    pictures = (Picture(froc_plot(curves), caption), *bars) if curves else ()
    return Section("Detection of inserted nodules", (text, *counts), tuple(tables), pictures)


def scan_level_section(sets: Sequence[TriedScans]) -> Section:
    """AUROC of scans, NODE21's score and both readings of "FROC25%", as far as each set defines them."""
    paragraphs, tables = [NODE21], []
    for tried in sets:
        with_nodule = sum(bool(trial.truths) for trial in tried.trials)
        without = len(tried.trials) - with_nodule
        counted = f"In {tried.name}: {with_nodule} scans with and {without} without a nodule."
        if tried.froc is None:
            paragraphs.append(f"{counted} Without a nodule none of these figures is defined.")
            continue
        if not without:
            counted += " No scan is negative, so AUROC of scans and the combined score are not defined."
        paragraphs.append(counted)
        tables.append(estimates_table(f"Whole scans, {tried.name}", node21_score(tried.froc).by_name()))
    return Section("Whole scans", tuple(paragraphs), tuple(tables))


def real_scans_section(evaluation: Evaluation, pictures: Sequence[Picture]) -> Section:
    """What was marked at the default threshold in each scan as it was acquired."""
    rows = tuple(_real_row(lungs, trial) for _, lungs in sorted(evaluation.lungs.items()) for trial in lungs.acquired)
    false = [int(row[4]) for row in rows]
    mean = f"{fmean(false):.2f} false marks per scan over {len(false)} scans." if false else "No scan was analysed."
    text = (
        "Each scan by the networks that never saw its lungs, at the default threshold of their fold. Nodules are those "
        "that LUNA16 annotates and those beyond them that at least two readers of LIDC outlined. A mark in a finding "
        "that LUNA16 lists as irrelevant is neither a hit nor false. So few scans say what happened, not how often."
    )
    return Section(
        "Scans as they were acquired",
        (text, mean),
        (
            Table(
                "Marks at or above the default threshold",
                ("scan", "networks", "threshold", "nodules found", "false marks", "irrelevant marks"),
                rows,
            ),
        ),
        tuple(pictures),
    )


def _real_row(lungs: LungTrials, trial: ScanTrial) -> tuple[str, ...]:
    (outcome,) = outcomes_of([trial])
    found = sum(n.probability is not None and n.probability >= lungs.threshold for n in outcome.nodules)
    false = sum(mark.probability >= lungs.threshold for mark in outcome.false_positives)
    above = [mark for mark in trial.marks if mark.probability >= lungs.threshold]
    return (
        trial.name,
        f"fold {lungs.fold}",
        f"{lungs.threshold:.4f}",
        f"{found} of {len(outcome.nodules)}" if outcome.nodules else "none annotated",
        str(false),
        str(sum(what_is_marked(trial, mark) == IRRELEVANT for mark in above)),
    )


def _tried(name: str, trials: Sequence[ScanTrial]) -> TriedScans:
    return TriedScans(name, tuple(trials), froc_of(trials) if any(trial.truths for trial in trials) else None)


def _by_size(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {f"{low:g}-{high:g}": found[f"sensitivity_{low:g}_to_{high:g}_mm"] for low, high in SIZE_BANDS_MM}


def _by_kind(found: Mapping[str, Estimate], trials: Sequence[ScanTrial]) -> dict[str, Estimate]:
    kinds = sorted({truth.kind for trial in trials for truth in trial.truths})
    return {kind: found[f"sensitivity_{kind}"] for kind in kinds}


def _counts(name: str, result: FrocResult) -> str:
    low, high = SIZE_BANDS_MM[0][0], SIZE_BANDS_MM[-1][1]
    outside = sum(not low <= n.nodule.diameter_mm < high for scan in result.scans for n in scan.nodules)
    rest = f"; {outside} lie outside {low:g} to {high:g} mm and count only in the total" if outside else ""
    return f"In {name}: {len(result.scans)} scans, {result.n_nodules} nodules{rest}."
