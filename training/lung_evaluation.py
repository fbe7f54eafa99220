"""Detection by the exported networks in the service's own pipeline, in lungs that they never saw.

A fold's detector holds out lungs as its characteriser holds out patients. What has to be chosen for a fold (the say of
each stage, the cut of the first, the operating points) is chosen on the other folds' networks in the lungs those hold
out, so that the scans a figure is measured on have chosen nothing in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.imaging.reading import read_ct
from app.inference.manifest import OperatingPointEntry
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from training.config import TrainingConfig
from training.decisions import Decisions
from training.detection_evaluation import EVERY_CANDIDATE, ScanTrial, try_inserted, try_scan
from training.export import export_model
from training.inserted_scans import inserted_scan
from training.lung_background import luna16_findings
from training.mixture import (
    CandidateTable,
    choose_score_threshold,
    choose_weight,
    sensitivity_above,
    tabulate,
    threshold_at,
)
from training.nodule_bank import NoduleBank
from training.prepare import Prepared, load_background
from training.real_scans import load_real_scan

OPERATING_POINTS = {"sensitive": 4.0, "balanced": 1.0, "specific": 0.25}
"""False positives per scan in lungs that were held out."""
DEFAULT_OPERATING_POINT = "balanced"
LOWEST_PROBABILITY, LOWEST_SCORE = 0.01, 0.05
POPULATIONS, DECIDING_POPULATIONS, NODULES_EACH = 12, 6, 10


@dataclass(frozen=True)
class LungTrials:
    """What one fold's networks said in the lungs that it holds out.

    Parameters
    ----------
    inserted
        Copies with nodules of held-out patients inserted, at their own sizes.
    acquired
        The scans as they were taken.
    threshold
        Of the default operating point, chosen on the other folds.
    """

    fold: int
    inserted: tuple[ScanTrial, ...]
    acquired: tuple[ScanTrial, ...]
    threshold: float


def candidate_tables(
    config: TrainingConfig, prepared: Prepared, decisions: Decisions, fold: int, scans: Sequence[str]
) -> list[CandidateTable]:
    """What both stages of a fold say of every candidate in copies of ``scans`` with nodules of held-out patients."""
    model = _model(config, decisions.model_copy(update={"score_threshold": LOWEST_SCORE}), fold)
    bank = _held_out_bank(prepared, fold)
    tables = []
    for scan in scans:
        background = load_background(config, scan)
        volume, _ = read_ct(config.data.root / scan)
        own = luna16_findings(config.data.root, background.series_uid)
        for number in range(DECIDING_POPULATIONS):
            rng = np.random.default_rng((config.seed + 1, number))
            copy, truths = inserted_scan(volume, background, bank, NODULES_EACH, rng, own_size=True)
            tables.append(tabulate(copy, truths, own, model))
    return tables


def decide_on_tables(decisions: Decisions, tables: Sequence[CandidateTable], where: str) -> Decisions:
    """The say of each stage, the cut of the first and the operating points."""
    weight = choose_weight(tables)
    cut = choose_score_threshold(tables, weight)
    kept = [table.above(cut) for table in tables]
    points = {}
    for name, fp_per_scan in OPERATING_POINTS.items():
        threshold = threshold_at(kept, weight, fp_per_scan)
        points[name] = OperatingPointEntry(
            threshold=round(float(1 / (1 + np.exp(-threshold))), 4),
            description=f"{fp_per_scan:g} false positives per scan in lungs that were not trained in",
            sensitivity=sensitivity_above(kept, weight, threshold),
            false_positives_per_scan=fp_per_scan,
            measured_on=f"{len(tables)} scans: {where}, with inserted nodules of held-out patients",
        )
    return decisions.model_copy(
        update={
            "detector_weight": weight,
            "score_threshold": cut,
            "operating_points": points,
            "default_operating_point": DEFAULT_OPERATING_POINT,
        }
    )


def try_lungs(config: TrainingConfig, prepared: Prepared, decisions: Decisions, fold: int) -> LungTrials:
    """Run the service's pipeline on the scans that the fold holds out, with and without inserted nodules."""
    model = _model(config, decisions, fold)
    bank = _held_out_bank(prepared, fold)
    inserted: list[ScanTrial] = []
    acquired = []
    for scan in config.data.held_out_scans(fold):
        real = load_real_scan(config, scan, fold)
        background = load_background(config, scan)
        own = luna16_findings(config.data.root, background.series_uid)
        inserted += try_inserted(
            real.name, real.volume, background, bank, own, model,
            populations=POPULATIONS, nodules_each=NODULES_EACH, seed=config.seed, own_size=True,
        )  # fmt: skip
        acquired.append(try_scan(real.name, real.volume, real.nodules, real.irrelevant, model))
    threshold = decisions.operating_points[decisions.default_operating_point].threshold
    return LungTrials(fold, tuple(inserted), tuple(acquired), threshold)


def _held_out_bank(prepared: Prepared, fold: int) -> NoduleBank:
    """What LUNA16's rule calls a nodule, of the patients that the fold holds out."""
    return prepared.bank.of_patients(set(prepared.split.patients(fold))).reference_standard()


def _model(config: TrainingConfig, decisions: Decisions, fold: int) -> LoadedModel:
    """The networks as they will be served, with one more operating point that lets nearly every candidate through."""
    everything = OperatingPointEntry(threshold=LOWEST_PROBABILITY, description="for evaluation")
    points = {**decisions.operating_points, EVERY_CANDIDATE: everything}
    default = decisions.default_operating_point or EVERY_CANDIDATE
    folder: Path = config.folder / f"evaluation-model-fold{fold}"
    whole = decisions.model_copy(update={"operating_points": points, "default_operating_point": default})
    export_model(config, fold, folder, whole)
    return load_model(folder, SessionOptions(device="cpu", threads=config.threads))
