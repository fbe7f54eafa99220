"""Measure what has been trained and decide what export needs.

Every fold that has finished counts: its own figures are those of its networks, the pooled ones those of the recipe.
Calibration comes from a fold's held-out patients, the say of each stage and the operating points from the other folds'
networks in the lungs that those hold out; figures are cross-fitted, so nothing is chosen on what it is reported on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from app.evaluation.estimates import Estimate, bootstrap
from app.inference.manifest import Metric
from training.characteriser_evaluation import (
    JudgedNodules,
    JudgedPatches,
    judge_nodules,
    judge_patches,
    nodule_figures,
    patch_figures,
    pooled,
)
from training.characteriser_scores import score_nodules, score_patches
from training.checkpoint import Checkpoint
from training.config import TrainingConfig
from training.decisions import Decisions, write_decisions
from training.detection_evaluation import ScanTrial, false_positives_at, found_at, froc_of, outcomes_of
from training.evaluation_report import write_evaluation_report
from training.evaluation_result import Evaluation
from training.export import load_characteriser
from training.lung_evaluation import LungTrials, candidate_tables, decide_on_tables, try_lungs
from training.mixture import CandidateTable
from training.prepare import Prepared, prepare
from training.served import Calibration, ServedCharacteriser
from training.train import fold_folder


def evaluate(config: TrainingConfig, *, fold: int = 0) -> Decisions:
    """Print every figure, write ``evaluation-fold<fold>.json`` and ``.html`` into the run's folder.

    Raises
    ------
    FileNotFoundError
        If a stage of the fold has not been trained to its end.
    """
    for stage in ("characteriser", "detector"):
        if fold not in finished_folds(config, stage):
            raise FileNotFoundError(f"fold {fold}: the {stage} has not been trained to its end; run `train` first")
    evaluation = measure(config, prepare(config), fold)
    metrics = all_metrics(config, evaluation)
    decisions = evaluation.decisions[fold].model_copy(update={"metrics": tuple(metrics)})
    write_decisions(config.folder / f"evaluation-fold{fold}.json", decisions)
    write_evaluation_report(config.folder / f"evaluation-fold{fold}.html", config, evaluation, metrics)
    for metric in metrics:
        interval = "" if metric.ci95 is None else f" ({metric.ci95[0]:.3f} to {metric.ci95[1]:.3f})"
        sys.stdout.write(f"{metric.name}: {metric.value:.3f}{interval}, n = {metric.n}, {metric.data}\n")
    return decisions


def finished_folds(config: TrainingConfig, stage: str) -> tuple[int, ...]:
    """Folds whose stage has been trained to its last step."""
    steps = {"characteriser": config.characteriser.steps, "detector": config.detector.steps}[stage]
    paths = {fold: fold_folder(config, fold) / f"{stage}.ckpt" for fold in range(config.data.folds)}
    return tuple(fold for fold, path in paths.items() if path.exists() and Checkpoint.read(path)["step"] == steps)


def measure(config: TrainingConfig, prepared: Prepared, fold: int) -> Evaluation:
    """Second stage by patients, then the whole service by lungs."""
    decisions: dict[int, Decisions] = {}
    patches: dict[int, JudgedPatches] = {}
    nodules: dict[int, JudgedNodules] = {}
    for k in finished_folds(config, "characteriser"):
        network = ServedCharacteriser(load_characteriser(config, k), Calibration(), Calibration()).eval()
        patches[k], calibration = judge_patches(score_patches(config, network, prepared.patches, prepared.split, k))
        nodules[k], malignancy, shift = judge_nodules(
            config.data, score_nodules(config, network, prepared.stacks, prepared.split, k)
        )
        decisions[k] = Decisions(nodule=calibration, malignancy=malignancy, mask_shift=shift)
    whole = [k for k in finished_folds(config, "detector") if k in decisions and k < len(config.data.lung_folds)]
    if fold not in whole:
        whole.append(fold)
    tables = {
        k: candidate_tables(config, prepared, decisions[k], k, config.data.held_out_scans(k)) for k in whole
    } if len(whole) > 1 else {}  # fmt: skip
    lungs = {}
    for k in whole:
        decisions[k] = _decide(config, prepared, decisions[k], k, {j: t for j, t in tables.items() if j != k})
        lungs[k] = try_lungs(config, prepared, decisions[k], k)
    return Evaluation(fold, decisions, patches, nodules, lungs)


def _decide(
    config: TrainingConfig,
    prepared: Prepared,
    decisions: Decisions,
    fold: int,
    others: Mapping[int, Sequence[CandidateTable]],
) -> Decisions:
    """On the other folds; where there is none, on the fold's own networks in the lungs they were trained in."""
    if others:
        where = f"lungs that the networks of folds {', '.join(map(str, sorted(others)))} never saw"
        return decide_on_tables(decisions, list(chain.from_iterable(others.values())), where)
    tables = candidate_tables(config, prepared, decisions, fold, config.data.training_scans(fold))
    return decide_on_tables(decisions, tables, "lungs that the detector was trained in, for want of another fold")


def all_metrics(config: TrainingConfig, evaluation: Evaluation) -> list[Metric]:
    """Figures of the model card: the fold's own, then those of all folds that were trained."""
    fold, folds = evaluation.fold, len(evaluation.patches)
    own = f"fold {fold} of {config.data.folds} by patient"
    metrics = [
        *_metrics(patch_figures(evaluation.patches[fold]), f"LUNA16 candidate patches, {own}"),
        *_metrics(nodule_figures(evaluation.nodules[fold]), f"LIDC nodule slices, {own}"),
        *_detection_metrics([evaluation.lungs[fold]], "by the networks of this model"),
    ]
    if folds > 1:
        everyone = f"{folds} of {config.data.folds} folds by patient, each by the networks that never saw it"
        metrics += _metrics(
            patch_figures(pooled(list(evaluation.patches.values()))), f"LUNA16 candidate patches, {everyone}"
        )
        metrics += _metrics(
            nodule_figures(pooled(list(evaluation.nodules.values()))), f"LIDC nodule slices, {everyone}"
        )
    if len(evaluation.lungs) > 1:
        trials = list(evaluation.lungs.values())
        metrics += _detection_metrics(trials, f"each by the networks that never saw it, {len(trials)} folds")
    return metrics + [m for trials in evaluation.lungs.values() for m in _acquired_metrics(trials, fold)]


def _detection_metrics(lungs: Sequence[LungTrials], by_whom: str) -> list[Metric]:
    """Inserted nodules: FROC, and by size and kind at one false positive per scan."""
    trials = [trial for one in lungs for trial in one.inserted]
    names = sorted({trial.name for one in lungs for trial in one.acquired})
    data = f"{len(trials)} copies of {', '.join(names)} with nodules of held-out patients inserted, {by_whom}"
    result = froc_of(trials)
    at_1_fp = found_at(trials, result.curve.threshold_at(1.0))
    thresholds = [one.threshold for one in lungs for _ in one.inserted]
    counts = [false_positives_at([t], threshold)[0] for t, threshold in zip(trials, thresholds, strict=True)]
    figures = {
        "detection_cpm": result.cpm,
        **{f"detection_sensitivity_at_{rate:g}_fp_per_scan": value for rate, value in result.sensitivities.items()},
        **{f"detection_at_1_fp_{n.removeprefix('sensitivity_')}": v for n, v in at_1_fp.items() if n != "sensitivity"},
        "detection_false_positives_per_scan_at_default": _mean_count(counts),
    }
    return _metrics(figures, data)


def _acquired_metrics(lungs: LungTrials, fold: int) -> list[Metric]:
    """Scans as they were taken: annotated nodules found, and false marks clear of every finding LUNA16 lists."""
    metrics = []
    who = "this model" if lungs.fold == fold else f"the networks of fold {lungs.fold}"
    for trial in lungs.acquired:
        data = f"{trial.name} as acquired, lungs held out, by {who} at its default threshold"
        false = false_positives_at([trial], lungs.threshold)[0]
        metrics.append(Metric(name="real_scan_false_positives", value=float(false), n=1, data=data))
        if trial.truths:
            found = found_at([trial], lungs.threshold)["sensitivity"]
            metrics.append(Metric(name="real_scan_nodules_found", value=found.value * found.n, n=found.n, data=data))
            metrics += _ranks(trial, data)
    return metrics


def _ranks(trial: ScanTrial, data: str) -> list[Metric]:
    """False marks above each annotated nodule: what a reader works through before reaching it."""
    (scan,) = outcomes_of([trial])
    return [
        Metric(
            name="real_scan_false_marks_above_nodule",
            value=float(sum(mark.probability >= nodule.probability for mark in scan.false_positives)),
            n=1,
            data=data,
        )
        for nodule in scan.nodules
        if nodule.probability is not None
    ]


def _metrics(figures: Mapping[str, Estimate], data: str) -> list[Metric]:
    """Figures of the model card; those without a single case are left out."""
    return [
        Metric(name=name, value=value.value, ci95=(value.low, value.high), n=value.n, data=data)
        for name, value in figures.items()
        if value.n and np.isfinite((value.value, value.low, value.high)).all()
    ]


def _mean_count(counts: list[int]) -> Estimate:
    values = np.asarray(counts, dtype=np.float64)
    return bootstrap(lambda drawn: float(values[drawn].mean()), np.arange(len(values)))
