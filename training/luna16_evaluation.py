"""Judge a fold on its subset: LUNA16's FROC through the service's own pipeline, and a submission to hand in.

Every scan's marks are written as soon as it is done, so an evaluation that was stopped goes on where it was. What has
to be chosen (calibration, the say of each stage, operating points) is chosen on the fold's choosing scans, never on the
subset that it is judged on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FP_RATES, FrocResult, Mark, froc
from app.evaluation.reference import Annotation, Luna16Error, Reference
from app.evaluation.submission import read_submission, write_submission
from app.imaging.errors import ScanError
from app.inference.manifest import Metric, OperatingPointEntry
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from training.characteriser_evaluation import fit_calibration
from training.characteriser_scores import BATCH, MASK_SHIFTS, score_nodules
from training.checkpoint import Checkpoint
from training.config import TrainingConfig
from training.crop_augmentation import middle
from training.decisions import Decisions, read_decisions, write_decisions
from training.detection_evaluation import EVERY_CANDIDATE, try_scan
from training.export import export_model, load_characteriser
from training.inserted_scans import TrueNodule
from training.luna16 import Luna16Case
from training.luna16_run import Parts, luna16_cases, parts_of_fold, second_stage_data
from training.luna16_scans import read_image
from training.lung_background import Finding
from training.lung_evaluation import LOWEST_PROBABILITY, LOWEST_SCORE, decide_on_tables
from training.mixture import tabulate
from training.served import Calibration, ServedCharacteriser
from training.splits import Split
from training.train import fold_folder

LEAST_EACH = 10
"""Fewer cases of a class calibrate nothing; probabilities are then the network's own."""


def evaluate_luna16(config: TrainingConfig, *, fold: int) -> Decisions:
    """Print the FROC of the fold's subset, write its submission and what `export` needs.

    When every configured subset has a submission, the FROC over all of them is printed too: LUNA16's own figure.

    Raises
    ------
    FileNotFoundError
        If a stage of the fold has not been trained to its end.
    """
    cases = luna16_cases(config)
    parts = parts_of_fold(config, cases, fold)
    key = _weights_key(config, fold)
    decisions = _chosen(config, parts, fold, key)
    marks = _marks(config, parts.judge, decisions, fold, key)
    write_submission(fold_folder(config, fold) / "submission.csv", marks)
    result = froc(reference_of(parts.judge), marks)
    metrics = froc_metrics(result, f"subset {fold} of LUNA16, {len(parts.judge)} whole scans, its own nodules")
    joined = _joined(config, cases)
    if joined is not None:
        metrics += froc_metrics(
            joined, f"all {len(cases)} scans of LUNA16, each by networks that never saw its patient"
        )
    decisions = decisions.model_copy(update={"metrics": tuple(metrics)})
    write_decisions(config.folder / f"evaluation-fold{fold}.json", decisions)
    for metric in metrics:
        interval = "" if metric.ci95 is None else f" ({metric.ci95[0]:.3f} to {metric.ci95[1]:.3f})"
        sys.stdout.write(f"{metric.name}: {metric.value:.3f}{interval}, n = {metric.n}, {metric.data}\n")
    return decisions


def reference_of(cases: Sequence[Luna16Case]) -> Reference:
    """The reference standard of these scans; those without nodules count for false positives."""
    return Reference(
        tuple(case.series_uid for case in cases),
        {case.series_uid: case.nodules for case in cases},
        {case.series_uid: case.irrelevant for case in cases},
    )


def froc_metrics(result: FrocResult, data: str) -> list[Metric]:
    """CPM and the seven sensitivities as figures of the model card."""
    figures = {"luna16_cpm": result.cpm} | {
        f"luna16_sensitivity_at_{rate:g}_fp_per_scan": result.sensitivities[rate] for rate in FP_RATES
    }
    return [_metric(name, figure, data) for name, figure in figures.items()]


def _metric(name: str, figure: Estimate, data: str) -> Metric:
    known = np.isfinite((figure.low, figure.high)).all()
    return Metric(
        name=name, value=figure.value, ci95=(figure.low, figure.high) if known else None, n=figure.n, data=data
    )


def _weights_key(config: TrainingConfig, fold: int) -> str:
    """Names the trained weights: what was measured with others is measured anew."""
    digest = hashlib.sha256()
    for stage in ("characteriser", "detector"):
        path = fold_folder(config, fold) / f"{stage}.ckpt"
        if not path.exists() or not Checkpoint.read(path).get("finished", False):
            raise FileNotFoundError(f"fold {fold}: the {stage} has not been trained to its end; run `train` first")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _chosen(config: TrainingConfig, parts: Parts, fold: int, key: str) -> Decisions:
    """What is chosen on the choosing scans; read back where these weights have chosen before."""
    path = fold_folder(config, fold) / f"choices-{key}.json"
    if path.exists():
        return read_decisions(path)
    decisions = _calibrated(config, parts.choose, fold)
    model = _served(config, decisions.model_copy(update={"score_threshold": LOWEST_SCORE}), fold)
    tables = []
    for case in tqdm(parts.choose, desc="choose", mininterval=5):
        truths = [TrueNodule(a.center_lps_mm, a.diameter_mm, "annotated", "", float("nan")) for a in case.nodules]
        tables.append(tabulate(read_image(case.image_path), truths, _findings(case.irrelevant), model))
    where = f"{len(tables)} whole LUNA16 scans that were not learnt from, with their own nodules"
    decisions = decide_on_tables(decisions, tables, where)
    points = {n: p.model_copy(update={"measured_on": where}) for n, p in decisions.operating_points.items()}
    decisions = decisions.model_copy(update={"operating_points": points})
    half_written = path.with_suffix(".part")
    write_decisions(half_written, decisions)
    half_written.replace(path)
    return decisions


def _calibrated(config: TrainingConfig, cases: Sequence[Luna16Case], fold: int) -> Decisions:
    """Calibration of both probabilities and of the mask's edge."""
    network = ServedCharacteriser(load_characteriser(config, fold), Calibration(), Calibration()).eval()
    data = second_stage_data(config, cases)
    logits = []
    with torch.no_grad():
        for start in range(0, len(data.patches.crops), BATCH):
            crops = torch.from_numpy(data.patches.crops[start : start + BATCH])
            logits.append(network.logits(middle(crops, config.crop.size_px).float() / 255).nodule.numpy())
    nodule = _fitted(np.concatenate(logits).astype(np.float64), data.patches.is_nodule)
    if not len(data.stacks.slice_count):
        return Decisions(nodule=nodule)
    everyone = Split(dict.fromkeys(map(str, data.stacks.patient_id), 0), 1, 0, "choosing scans")
    scores = score_nodules(config, network, data.stacks, everyone, 0)
    malignant = scores.mean_rating > config.data.malignant_above
    rated = malignant | (scores.mean_rating < config.data.benign_below)
    return Decisions(
        nodule=nodule,
        malignancy=_fitted(scores.malignancy_logit[rated], malignant[rated]),
        mask_shift=MASK_SHIFTS[int(np.argmax(scores.dice.mean(axis=0)))],
    )


def _fitted(logit: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> Calibration:
    if min(int(is_positive.sum()), int((~is_positive).sum())) < LEAST_EACH:
        return Calibration()
    return fit_calibration(logit, is_positive)


def _marks(
    config: TrainingConfig, cases: Sequence[Luna16Case], decisions: Decisions, fold: int, key: str
) -> list[Mark]:
    """Marks of all scans, by the service's pipeline; those of scans that were done before are read back."""
    folder = fold_folder(config, fold) / f"marks-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [case for case in cases if not _marks_path(folder, case).exists()]
    if todo:
        model = _served(config, decisions, fold)
        for case in tqdm(todo, initial=len(cases) - len(todo), total=len(cases), desc="judge", mininterval=5):
            _analyse(case, model, _marks_path(folder, case))
    return list(chain.from_iterable(_read_marks(_marks_path(folder, case), case.series_uid) for case in cases))


def _marks_path(folder: Path, case: Luna16Case) -> Path:
    return folder / f"{case.series_uid}.json"


def _analyse(case: Luna16Case, model: LoadedModel, path: Path) -> None:
    """Write one scan's marks. One that the service refuses has none: it stays in every denominator."""
    try:
        marks = try_scan(case.series_uid, read_image(case.image_path), (), (), model).marks
    except (ScanError, Luna16Error) as error:
        sys.stderr.write(f"series {case.series_uid} counts without marks: {error}\n")
        marks = ()
    half_written = path.with_suffix(".part")
    half_written.write_text(json.dumps([[*mark.center_lps_mm, mark.probability] for mark in marks]), encoding="utf-8")
    half_written.replace(path)


def _read_marks(path: Path, series_uid: str) -> list[Mark]:
    return [Mark(series_uid, (x, y, z), p) for x, y, z, p in json.loads(path.read_text(encoding="utf-8"))]


def _served(config: TrainingConfig, decisions: Decisions, fold: int) -> LoadedModel:
    """The networks as they will be served, with one more operating point that lets every candidate through."""
    everything = OperatingPointEntry(threshold=LOWEST_PROBABILITY, description="for evaluation")
    points = {**decisions.operating_points, EVERY_CANDIDATE: everything}
    whole = decisions.model_copy(update={"operating_points": points, "default_operating_point": EVERY_CANDIDATE})
    folder = config.folder / f"evaluation-model-fold{fold}"
    export_model(config, fold, folder, whole)
    return load_model(folder, SessionOptions(device=config.device, threads=config.threads))


def _findings(irrelevant: Iterable[Annotation]) -> list[Finding]:
    return [Finding(finding.center_lps_mm, 2 * finding.hit_radius_mm) for finding in irrelevant]


def _joined(config: TrainingConfig, cases: Sequence[Luna16Case]) -> FrocResult | None:
    """All subsets as one submission, once each has its own."""
    paths = [fold_folder(config, fold) / "submission.csv" for fold in sorted(config.luna16.folds)]
    if len(paths) < 2 or not all(path.exists() for path in paths):
        return None
    marks = [mark for path in paths for mark in read_submission(path)]
    write_submission(config.folder / "submission.csv", marks)
    return froc(reference_of(cases), marks)
