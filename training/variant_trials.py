"""What a variant is tried on: crops to calibrate with, held-out lungs and patches to be judged by.

Everything runs through `app.inference`, as it is served. Calibration sees training patients and training lungs only;
the trials see held-out patients and lungs only, and both networks of a pair see the very same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.evaluation.estimates import area_under_roc
from app.imaging.preprocessing import CropSpec, sample_crops
from app.imaging.volume import CtVolume, PreparedVolume
from app.inference.characterisation import mixed_probability
from app.inference.detection import detect
from app.inference.findings import Candidate
from app.inference.model_store import LoadedModel
from training.config import DataConfig, TrainingConfig
from training.insertion import populate
from training.lung_background import Background
from training.metrics import dice
from training.nodule_bank import NoduleBank
from training.nodule_stacks import READERS
from training.prepare import Prepared, load_background
from training.train_detector import to_network_units

FloatArray = NDArray[np.float64]
SIDE = 96
"""Voxels along a crop that the detector is calibrated on."""
NODULES_EACH = 12
BATCH = 32


@dataclass(frozen=True)
class Sizes:
    """How much a variant is tried on."""

    calibration: int = 24
    populations: int = 12
    patches: int = 2000
    nodules: int = 240


@dataclass(frozen=True)
class LungTrial:
    """A held-out lung at 1 mm with nodules of held-out patients inserted."""

    volume: CtVolume
    prepared: PreparedVolume
    centers_lps_mm: FloatArray
    radii_mm: FloatArray

    def hits(self, candidates: list[Candidate]) -> NDArray[np.bool_]:
        """(candidates, nodules): whether a candidate lies in a nodule, LUNA16's rule."""
        centers = np.asarray([c.center_lps_mm for c in candidates]).reshape(-1, 1, 3)
        return np.asarray(np.linalg.norm(centers - self.centers_lps_mm, axis=2) < self.radii_mm)


def training_patients(config: TrainingConfig, prepared: Prepared, fold: int) -> set[str]:
    """Patients of the other folds."""
    return {p for f in range(config.data.folds) if f != fold for p in prepared.split.patients(f)}


def detector_samples(config: TrainingConfig, prepared: Prepared, fold: int, count: int) -> list[NDArray[np.float32]]:
    """Crops (1, 1, side, side, side) of training lungs, half of them around an inserted nodule."""
    bank = prepared.bank.of_patients(training_patients(config, prepared, fold))
    lungs = [load_background(config, scan) for scan in config.data.training_scans(fold)]
    samples = []
    for number in range(count):
        rng = np.random.default_rng((config.seed, number))
        lung = lungs[number % len(lungs)]
        shape = np.asarray(lung.hu.shape)
        start = np.clip(lung.draw_lung_voxels(rng, 1)[0] - SIDE // 2, 0, np.maximum(shape - SIDE, 0))
        box = (tuple(map(int, start)), tuple(map(int, np.minimum(start + SIDE, shape))))
        hu, _ = populate(lung, bank, number % 2 * 2, rng, within=box)  # type: ignore[arg-type]
        padding = [(0, SIDE - n) for n in hu.shape]
        samples.append(np.pad(to_network_units(hu, config.preprocessing), padding)[None, None])
    return samples


def characteriser_samples(
    config: TrainingConfig, prepared: Prepared, fold: int, count: int
) -> list[NDArray[np.float32]]:
    """Batches (n, 1, rows, columns): candidates and nodule slices of training patients, in equal parts."""
    patients = sorted(training_patients(config, prepared, fold))
    rng = np.random.default_rng(config.seed)
    stacks = prepared.stacks
    owner = np.repeat(np.arange(len(stacks.slice_count)), stacks.slice_count)
    pools = (
        (prepared.patches.crops, np.flatnonzero(np.isin(prepared.patches.patient_id, patients))),
        (stacks.crops, np.flatnonzero(np.isin(stacks.patient_id[owner], patients))),
    )
    samples = []
    for crops, rows in pools:
        chosen = np.sort(rng.choice(rows, min(count * BATCH // 2, len(rows)), replace=False))
        middle = network_crops(crops[chosen], config.crop.size_px)[:, None]
        samples += [middle[start : start + BATCH] for start in range(0, len(middle), BATCH)]
    return samples


def network_crops(cached: NDArray[np.uint8], size_px: int) -> NDArray[np.float32]:
    """The middle of cached crops, in network units."""
    start = cached.shape[-1] // 2 - size_px // 2
    cut = cached[..., start : start + size_px, start : start + size_px]
    return np.asarray(cut.astype(np.float32) / 255)


def lung_trials(config: TrainingConfig, prepared: Prepared, fold: int, populations: int) -> list[LungTrial]:
    """Held-out lungs, each with several populations of nodules of held-out patients."""
    bank = prepared.bank.of_patients(set(prepared.split.patients(fold)))
    lungs = [load_background(config, scan) for scan in config.data.held_out_scans(fold)]
    return [
        _lung_trial(config, lung, bank, np.random.default_rng((config.seed, 7, n, number)))
        for n, lung in enumerate(lungs)
        for number in range(-(-populations // len(lungs)))
    ]


def _lung_trial(config: TrainingConfig, lung: Background, bank: NoduleBank, rng: np.random.Generator) -> LungTrial:
    hu, nodules = populate(lung, bank, NODULES_EACH, rng)
    prepared = PreparedVolume(
        to_network_units(hu, config.preprocessing), lung.grid, config.preprocessing.digest, in_lungs=lung.in_lungs
    )
    return LungTrial(
        volume=CtVolume(np.rint(hu).astype(np.int16), lung.grid),
        prepared=prepared,
        centers_lps_mm=lung.grid.to_patient(np.asarray([n.center_zyx for n in nodules]).reshape(-1, 3)),
        radii_mm=np.asarray([n.diameter_mm / 2 for n in nodules]),
    )


def try_detectors(lungs: Sequence[LungTrial], models: Mapping[str, LoadedModel]) -> dict[str, list[DetectorRun]]:
    """Every detector on every lung, in turns, so that a busy neighbour slows all of them alike."""
    runs: dict[str, list[DetectorRun]] = {name: [] for name in models}
    for lung in lungs:
        for name, model in models.items():
            started = time.perf_counter()
            found = detect(lung.prepared, model)
            runs[name].append(DetectorRun(found, time.perf_counter() - started))
    return runs


def final_probabilities(trial: LungTrial, candidates: list[Candidate], model: LoadedModel) -> FloatArray:
    """(candidates,) what the service would report of each."""
    if not candidates:
        return np.empty(0)
    entry = model.manifest.second_stage
    crops = sample_crops(trial.volume, [c.center_lps_mm for c in candidates], entry.crop)
    second = np.concatenate(
        [
            model.characteriser({"crops": crops[start : start + BATCH]})["nodule_probability"]
            for start in range(0, len(crops), BATCH)
        ]
    )
    pairs = zip(second, candidates, strict=True)
    return np.asarray([mixed_probability(float(p), c.probability, entry.detector_weight) for p, c in pairs])


@dataclass(frozen=True)
class DetectorRun:
    """Candidates of one lung by falling probability, and the seconds that they took."""

    candidates: list[Candidate]
    seconds: float


@dataclass(frozen=True)
class CropScores:
    """What a characteriser says of held-out patches and nodules."""

    patch_probability: FloatArray
    malignancy_probability: FloatArray
    mask_dice: FloatArray
    seconds: float


@dataclass(frozen=True)
class CropTrial:
    """Held-out patches and nodules."""

    patches: NDArray[np.float32]
    is_nodule: NDArray[np.bool_]
    through_middle: NDArray[np.float32]
    """(nodules, s, rows, columns) as candidates are cut."""
    is_malignant: NDArray[np.bool_]
    is_rated: NDArray[np.bool_]
    stacks: list[NDArray[np.float32]]
    outlines: list[NDArray[np.bool_]]

    def nodule_auroc(self, scores: CropScores) -> float:
        """Nodule against non-nodule."""
        return float(area_under_roc(self.is_nodule, scores.patch_probability))

    def malignancy_auroc(self, scores: CropScores) -> float:
        """Readers' mean rating above the benign range, against below."""
        rated = self.is_rated
        return float(area_under_roc(self.is_malignant[rated], scores.malignancy_probability[rated]))


def crop_trial(data: DataConfig, crop: CropSpec, prepared: Prepared, fold: int, sizes: Sizes) -> CropTrial:
    """At most so many held-out patches and nodules, evenly drawn from all."""
    held_out = prepared.split.patients(fold)
    stacks, size_px = prepared.stacks, crop.size_px
    rows = _evenly(np.flatnonzero(np.isin(prepared.patches.patient_id, held_out)), sizes.patches)
    chosen = _evenly(np.flatnonzero(np.isin(stacks.patient_id, held_out)), sizes.nodules)
    rating = stacks.rating("Malignancy")[chosen]
    cut, outlines, middles = [], [], []
    for n in chosen:
        every = slice(int(stacks.first_slice[n]), int(stacks.first_slice[n] + stacks.slice_count[n]))
        slices = network_crops(stacks.crops[every], size_px)
        steps = np.floor((len(slices) - 1) / 2 + np.asarray(crop.slice_offsets_mm) / stacks.slice_spacing_mm[n] + 0.5)
        middles.append(slices[np.clip(steps, 0, len(slices) - 1).astype(int)])
        cut.append(slices)
        share = network_crops(stacks.reader_fraction[every], size_px)
        outlines.append(share * READERS / stacks.rating("NumAnnotations")[n] >= 0.499)
    return CropTrial(
        patches=network_crops(prepared.patches.crops[rows], size_px)[:, None],
        is_nodule=prepared.patches.is_nodule[rows],
        through_middle=np.stack(middles),
        is_malignant=rating > data.malignant_above,
        is_rated=(rating < data.benign_below) | (rating > data.malignant_above),
        stacks=cut,
        outlines=outlines,
    )


def score_crops(trial: CropTrial, model: LoadedModel) -> CropScores:
    """One pass over all of them."""
    started = time.perf_counter()
    patch = _batched(model, trial.patches, "nodule_probability")
    malignancy = _batched(model, trial.through_middle, "malignancy_probability")
    overlap = [
        dice(model.characteriser({"crops": stack[None]})["mask_probability"][0] >= 0.5, outline)
        for stack, outline in zip(trial.stacks, trial.outlines, strict=True)
    ]
    return CropScores(patch, malignancy, np.asarray(overlap), time.perf_counter() - started)


def _batched(model: LoadedModel, crops: NDArray[np.float32], output: str) -> FloatArray:
    starts = range(0, len(crops), BATCH)
    parts = [model.characteriser({"crops": crops[start : start + BATCH]})[output] for start in starts]
    return np.concatenate(parts).astype(np.float64)


def _evenly(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    return np.asarray(rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)])
