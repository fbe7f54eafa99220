"""Measure a trained fold and decide what export needs.

Decisions come from the held-out patients' candidate patches (calibration) and the validation lungs (the say of each
stage, operating points); the whole service is then tried on lungs that no network was trained on. Nothing is chosen on
the scans that detection is reported on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from app.inference.manifest import Metric, OperatingPointEntry
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from training.characteriser_evaluation import (
    fit_calibration,
    nodule_figures,
    patch_figures,
    score_nodules,
    score_patches,
)
from training.config import TrainingConfig
from training.decisions import Decisions, write_decisions
from training.detection_evaluation import (
    EVERY_CANDIDATE,
    ScanTrial,
    false_positives_at,
    found_at,
    froc_of,
    try_inserted,
    try_scan,
)
from training.export import export_model, load_characteriser
from training.froc import Mark
from training.inserted_scans import TrueNodule, inserted_scan
from training.luna16 import read_annotations
from training.lung_background import luna16_findings
from training.metrics import Estimate, bootstrap
from training.mixture import choose_weight, sensitivity_above, tabulate, threshold_at
from training.prepare import Prepared, load_background, prepare
from training.served import Calibration, ServedCharacteriser

OPERATING_POINTS = {"sensitive": 4.0, "balanced": 1.0, "specific": 0.25}
"""False positives per scan in the validation lungs."""
DEFAULT_OPERATING_POINT = "balanced"
LOWEST_PROBABILITY = 0.05
POPULATIONS, VALIDATION_POPULATIONS, NODULES_EACH = 16, 5, 8


def evaluate(config: TrainingConfig, *, fold: int = 0) -> Decisions:
    """Print every figure and write ``evaluation-fold<fold>.json`` into the run's folder."""
    prepared = prepare(config)
    decisions = decide_on_patches(config, prepared, fold)
    decisions = decide_on_lungs(config, prepared, decisions, fold)
    metrics = list(decisions.metrics)
    for scan in config.data.held_out_scans(fold):
        metrics += _detection_metrics(config, prepared, decisions, scan, fold)
    decisions = decisions.model_copy(update={"metrics": tuple(metrics)})
    write_decisions(config.folder / f"evaluation-fold{fold}.json", decisions)
    for metric in metrics:
        interval = "" if metric.ci95 is None else f" ({metric.ci95[0]:.3f} to {metric.ci95[1]:.3f})"
        sys.stdout.write(f"{metric.name}: {metric.value:.3f}{interval}, n = {metric.n}, {metric.data}\n")
    return decisions


def decide_on_patches(config: TrainingConfig, prepared: Prepared, fold: int) -> Decisions:
    """Calibration from the held-out patients' patches and nodules, with the figures."""
    network = ServedCharacteriser(load_characteriser(config, fold), Calibration(), Calibration()).eval()
    patches = score_patches(config, network, prepared.patches, prepared.split, fold)
    nodules = score_nodules(config, network, prepared.stacks, prepared.split, fold)
    rated = (nodules.mean_rating < config.data.benign_below) | (nodules.mean_rating > config.data.malignant_above)
    malignant = nodules.mean_rating > config.data.malignant_above
    where = f"fold {fold} of {config.data.folds} by patient"
    return Decisions(
        nodule=fit_calibration(patches.logit, patches.is_nodule),
        malignancy=fit_calibration(nodules.malignancy_logit[rated], malignant[rated]),
        metrics=(
            *_metrics(patch_figures(patches), f"LUNA16 candidate patches, {where}"),
            *_metrics(nodule_figures(config, nodules), f"LIDC nodule slices, {where}"),
        ),
    )


def decide_on_lungs(config: TrainingConfig, prepared: Prepared, decisions: Decisions, fold: int) -> Decisions:
    """The detector's say and the operating points, in the validation lungs with nodules of held-out patients."""
    model = _every_candidate_model(config, decisions, fold)
    bank = prepared.bank.of_patients(set(prepared.split.patients(fold)))
    tables = []
    for scan in config.data.training_scans(fold):
        background = load_background(config, scan)
        volume, _ = read_ct(config.data.root / scan)
        own = luna16_findings(config.data.root, background.series_uid)
        for number in range(VALIDATION_POPULATIONS):
            rng = np.random.default_rng((config.seed + 1, number))
            copy, truths = inserted_scan(volume, background, bank, NODULES_EACH, rng)
            tables.append(tabulate(copy, truths, own, model))
    weight = choose_weight(tables)
    where = f"{len(tables)} copies of {len(config.data.training_scans(fold))} lungs that the detector was trained in"
    points = {}
    for name, fp_per_scan in OPERATING_POINTS.items():
        threshold = threshold_at(tables, weight, fp_per_scan)
        points[name] = OperatingPointEntry(
            threshold=round(float(1 / (1 + np.exp(-threshold))), 4),
            description=f"{fp_per_scan:g} false positives per scan in the validation lungs",
            sensitivity=sensitivity_above(tables, weight, threshold),
            false_positives_per_scan=fp_per_scan,
            measured_on=f"{where}, with inserted nodules of held-out patients",
        )
    return decisions.model_copy(
        update={
            "detector_weight": weight,
            "operating_points": points,
            "default_operating_point": DEFAULT_OPERATING_POINT,
        }
    )


def _detection_metrics(
    config: TrainingConfig, prepared: Prepared, decisions: Decisions, scan: str, fold: int
) -> list[Metric]:
    """The exported networks in the service's pipeline: the scan as it is, and with nodules of held-out patients."""
    model = _every_candidate_model(config, decisions, fold)
    background = load_background(config, scan)
    volume, _ = read_ct(config.data.root / scan)
    own = luna16_findings(config.data.root, background.series_uid)
    bank = prepared.bank.of_patients(set(prepared.split.patients(fold)))
    trials = try_inserted(
        scan, volume, background, bank, own, model, populations=POPULATIONS, nodules_each=NODULES_EACH, seed=config.seed
    )
    threshold = decisions.operating_points[decisions.default_operating_point].threshold
    result = froc_of(trials)
    data = f"{len(trials)} copies of {Path(scan).stem}, nodules of held-out patients inserted"
    figures = {
        "detection_cpm": result.cpm,
        **{f"detection_sensitivity_at_{rate:g}_fp_per_scan": value for rate, value in result.sensitivities.items()},
        **{f"detection_{name}": value for name, value in found_at(trials, threshold).items()},
        "detection_false_positives_per_scan": _mean_count(false_positives_at(trials, threshold)),
    }
    return [*_metrics(figures, data), *_real_metrics(config, scan, background.series_uid, volume, model, threshold)]


def _every_candidate_model(config: TrainingConfig, decisions: Decisions, fold: int) -> LoadedModel:
    """The networks as they will be served, with one more operating point that lets nearly every candidate through."""
    everything = OperatingPointEntry(threshold=LOWEST_PROBABILITY, description="for evaluation")
    points = {**decisions.operating_points, EVERY_CANDIDATE: everything}
    default = decisions.default_operating_point or EVERY_CANDIDATE
    folder = config.folder / f"evaluation-model-fold{fold}"
    export_model(
        config,
        fold,
        folder,
        decisions.model_copy(update={"operating_points": points, "default_operating_point": default}),
    )
    return load_model(folder, SessionOptions(device="cpu", threads=config.threads))


def _real_metrics(
    config: TrainingConfig, scan: str, series_uid: str, volume: CtVolume, model: LoadedModel, threshold: float
) -> list[Metric]:
    """The scan as it was taken: its annotated nodules, and false marks clear of every finding LUNA16 lists."""
    annotated = [
        a for a in read_annotations(config.data.root / "luna16" / "annotations.csv") if a.series_uid == series_uid
    ]
    truths = [TrueNodule(a.center_lps_mm, a.diameter_mm, "annotated", "", float("nan")) for a in annotated]
    trial = try_scan(scan, volume, truths, luna16_findings(config.data.root, series_uid), model)
    data = f"{Path(scan).stem} as acquired"
    false = [m.probability >= threshold for m in trial.marks if not _explained(m, trial)]
    metrics = [Metric(name="real_scan_false_positives", value=float(sum(false)), n=1, data=data)]
    if truths:
        found = sum(n.probability is not None and n.probability >= threshold for n in froc_of([trial]).scans[0].nodules)
        metrics.append(Metric(name="real_scan_nodules_found", value=float(found), n=len(truths), data=data))
    return metrics


def _explained(mark: Mark, trial: ScanTrial) -> bool:
    """Whether a mark lies in an annotated nodule or an irrelevant finding."""
    spheres = [(t.center_lps_mm, t.diameter_mm) for t in trial.truths]
    spheres += [(f.center_lps_mm, f.diameter_mm) for f in trial.irrelevant]
    return any(np.linalg.norm(np.subtract(mark.center_lps_mm, center)) < d / 2 for center, d in spheres)


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
