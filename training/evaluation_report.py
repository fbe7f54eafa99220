"""The evaluation as one HTML file that stands alone, and the pictures of marks beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.inference.manifest import Metric
from training.characteriser_evaluation import JudgedNodules, JudgedPatches, pooled
from training.config import TrainingConfig
from training.detection_report import (
    acquired_scans,
    detection_section,
    inserted_scans,
    real_scans_section,
    scan_level_section,
)
from training.evaluate_report import DISCLAIMER, Picture, Section, Table, html_report
from training.evaluation_result import Evaluation
from training.mark_pictures import mark_pictures, write_mark_pictures
from training.metric_tables import BARS, METRIC_HEADER, metric_row, metrics_by_data
from training.second_stage_report import malignancy_section, nodule_section, outline_section

GLOSSARY = (
    "AUROC: the chance that a case with the finding is ranked above one without it; 0.5 is guessing, 1 is perfect. "
    "Sensitivity: the share of nodules that are found. FP/scan: false marks per scan. FROC: sensitivity against "
    "FP/scan as the threshold falls. CPM: the mean sensitivity at 1/8 to 8 FP/scan. ECE: how far, on average, a "
    "probability is from the share of cases that have the finding. Dice: overlap of two outlines, 1 is the same. "
    "n: cases that a figure rests on. Intervals are 95 %, by resampling patients or scans where not said otherwise."
)

CHOICES = (
    (
        "Calibration (a slope and an intercept on the log-odds) and the shift of the mask's log-odds that ship are "
        "chosen on all patients that the fold holds out. Where they enter a figure they are cross-fitted: each half of "
        "those patients is judged by what the other half chose. AUROC within a fold does not depend on them."
    ),
    (
        "The detector's weight in the final log-odds, the cut below which its candidates are dropped, and the "
        "operating points are chosen on what the table says, with nodules of held-out patients inserted; figures are "
        "measured in other scans."
    ),
)


def write_evaluation_report(
    path: Path, config: TrainingConfig, evaluation: Evaluation, metrics: Sequence[Metric]
) -> None:
    """Write the report, and the pictures of marks into ``<name of the report>-marks`` beside it.

    Parameters
    ----------
    metrics
        As the model card shows them.

    Raises
    ------
    app.imaging.errors.ScanError
        If a scan that was evaluated cannot be read again.
    """
    marks = mark_pictures(config, evaluation)
    write_mark_pictures(path.with_name(f"{path.stem}-marks"), marks)
    inserted = inserted_scans(evaluation)
    patches, nodules = _with_all_folds(evaluation)
    sections = (
        _summary_section(config, evaluation),
        _bars_section(metrics),
        nodule_section(patches),
        malignancy_section(nodules),
        outline_section(nodules),
        detection_section(inserted),
        scan_level_section((*inserted, acquired_scans(evaluation))),
        real_scans_section(evaluation, tuple(Picture(mark.png, mark.caption) for mark in marks)),
        _choices_section(evaluation),
        _metrics_section(metrics),
    )
    title = f"{config.name} {config.version}: evaluation of fold {evaluation.fold}"
    path.write_text(html_report(title, sections), encoding="utf-8")


def _with_all_folds(evaluation: Evaluation) -> tuple[dict[str, JudgedPatches], dict[str, JudgedNodules]]:
    """The fold that ships and, where there are others, all folds as one."""
    ships = f"fold {evaluation.fold}, which ships"
    patches, nodules = {ships: evaluation.patches[evaluation.fold]}, {ships: evaluation.nodules[evaluation.fold]}
    if len(evaluation.patches) > 1:
        everyone = f"all {len(evaluation.patches)} folds"
        patches[everyone] = pooled(list(evaluation.patches.values()))
        nodules[everyone] = pooled(list(evaluation.nodules.values()))
    return patches, nodules


def _summary_section(config: TrainingConfig, evaluation: Evaluation) -> Section:
    folds = ", ".join(map(str, sorted(evaluation.patches)))
    lungs = ", ".join(map(str, sorted(evaluation.lungs)))
    text = (
        f"Fold {evaluation.fold} of {config.data.folds} holds the networks that ship. Patients are dealt to folds, and "
        "a fold's networks never see its patients; lungs that nodules are inserted into are held out the same way. "
        f"Trained to the end and measured: the second stage of fold {folds}, the whole service of fold {lungs}. "
        "Figures of all folds together tell what the recipe gives; those of the fold that ships are of the very files "
        "that are served."
    )
    run = f"Configuration {config.name}, version {config.version}, seed {config.seed}. {DISCLAIMER}"
    return Section("What was measured", (text, run, GLOSSARY))


def _bars_section(metrics: Sequence[Metric]) -> Section:
    rows = tuple((*metric_row(metric), metric.data) for metric in metrics if metric.name in BARS)
    missing = [name for name in BARS if all(metric.name != name for metric in metrics)]
    unmeasured = (f"Not measured here: {', '.join(missing)}.",) if missing else ()
    table = Table("Figures that have a bar", (*METRIC_HEADER, "data"), rows)
    return Section("Bars", ("What the project asks of a figure, and whether it was reached.", *unmeasured), (table,))


def _choices_section(evaluation: Evaluation) -> Section:
    decisions = evaluation.decisions[evaluation.fold]
    points = tuple(
        (
            f"{name}{' (default)' if name == decisions.default_operating_point else ''}",
            f"{point.threshold:.4f}",
            "" if point.sensitivity is None else f"{point.sensitivity:.3f}",
            point.description,
            point.measured_on or "",
        )
        for name, point in decisions.operating_points.items()
    )
    points_table = Table(
        f"Operating points of fold {evaluation.fold}",
        ("", "threshold", "sensitivity there", "meant to give", "chosen on"),
        points,
    )
    return Section("What was chosen, and on what", CHOICES, (points_table, _decisions_table(evaluation)))


def _decisions_table(evaluation: Evaluation) -> Table:
    rows = tuple(
        (
            f"{fold}{' (ships)' if fold == evaluation.fold else ''}",
            f"{one.nodule.slope:.3f}, {one.nodule.intercept:.3f}",
            f"{one.malignancy.slope:.3f}, {one.malignancy.intercept:.3f}",
            f"{one.mask_shift:g}",
            f"{one.detector_weight:g}" if fold in evaluation.lungs else "not measured",
            f"{one.score_threshold:g}" if fold in evaluation.lungs else "not measured",
        )
        for fold, one in sorted(evaluation.decisions.items())
    )
    header = (
        "fold",
        "nodule: slope, intercept",
        "malignancy: slope, intercept",
        "mask shift",
        "detector's weight",
        "detector's cut",
    )
    return Table("Chosen for each fold", header, rows)


def _metrics_section(metrics: Sequence[Metric]) -> Section:
    tables = tuple(
        Table(data, METRIC_HEADER, tuple(metric_row(metric) for metric in measured))
        for data, measured in metrics_by_data(metrics).items()
    )
    return Section("Every figure of the model card", ("By what it was measured on.",), tables)
