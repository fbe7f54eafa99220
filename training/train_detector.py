"""Train the first stage; `training.loop` does the steps.

Crops come from one of two sources. Here: a place in one of few lungs, a few nodules of the training patients inserted;
what the scan itself holds (annotated nodules and irrelevant findings, with a margin) teaches neither way. Where the
whole of LUNA16 is at hand: `training.luna16_crops`. Another scanner's look is put over both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from app.imaging.preprocessing import PreprocessingSpec
from training.augment import turned, vary_scanner
from training.checkpoint import Checkpoint, begin_with, start_file
from training.config import TrainingConfig
from training.detector import REFERENCE_DIAMETER_MM, STRIDE, Detector, HeatMaps
from training.insertion import populate
from training.loop import Schedule, Task, train_network
from training.lung_background import Background
from training.nodule_bank import NoduleBank
from training.processes import Placement, placement

LOG_EVERY = 20
SAVE_EVERY = 250


@dataclass(frozen=True)
class Targets:
    """Stride-4 targets of a batch.

    Parameters
    ----------
    heat
        (n, 1, z, y, x): 1 in the cell of a nodule's centre, falling off around it.
    weight
        (n, 1, z, y, x): 0 where the scan's own findings lie.
    offset, log_size
        (n, 3, ...), (n, 1, ...): as in `HeatMaps`; meant only where ``regress`` is true.
    regress
        bool (n, 1, z, y, x): cells at a nodule's centre.
    """

    heat: Tensor
    weight: Tensor
    offset: Tensor
    log_size: Tensor
    regress: Tensor


@dataclass(frozen=True)
class DetectorCrop:
    """A piece of a scan at 1 mm, at most as large as the network's input in training.

    Parameters
    ----------
    hu
        float32 (z, y, x).
    taught
        bool (z, y, x): False where nothing is to be learnt.
    centers_zyx, diameters_mm
        (n, 3) voxels of the crop and (n,) of the nodules centred in it.
    """

    hu: NDArray[np.float32]
    taught: NDArray[np.bool_]
    centers_zyx: NDArray[np.float64]
    diameters_mm: NDArray[np.float64]


@dataclass(frozen=True)
class DetectorBatch:
    """Volumes (n, 1, side, side, side) in network units and what the network should say of them."""

    volumes: Tensor
    targets: Targets


CropSource = Callable[[np.random.Generator], DetectorCrop]


def train_detector(
    config: TrainingConfig,
    backgrounds: Sequence[Background],
    bank: NoduleBank,
    folder: Path,
    *,
    seed: int,
    where: Placement | None = None,
) -> Detector:
    """Train on nodules of ``bank`` inserted into ``backgrounds``; see `train_on_crops`."""
    identity = config.digest("detector", "preprocessing", "data", "seed")
    source = partial(_inserted_crop, config, backgrounds, bank)
    return train_on_crops(config, source, folder, seed=seed, where=where, identity=identity)


def train_on_crops(
    config: TrainingConfig,
    source: CropSource,
    folder: Path,
    *,
    seed: int,
    identity: str,
    where: Placement | None = None,
) -> Detector:
    """Train to the configured number of steps, from the last checkpoint in ``folder`` if there is one.

    Parameters
    ----------
    source
        Draws a crop; the same crop from the same state of the generator.
    where
        This process; default: the only one.
    identity
        What a checkpoint must have been trained with and on.

    Returns
    -------
    Detector
        The exponential average of the weights, in evaluation mode.
    """
    settings = config.detector
    place = where or placement(config)
    torch.manual_seed(seed)
    network = Detector(settings.widths, settings.blocks)
    begin_with(network, folder / start_file("detector"))
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    task: Task[Detector, DetectorBatch] = Task(
        name="detector",
        batch=lambda step: training_batch(config, source, place.generator(seed, step)),
        losses=lambda network, batch: _losses(network, batch, place),
        total=lambda losses: losses["heat"] + losses["offset"] + losses["size"],
    )
    schedule = Schedule(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        ema_decay=settings.ema_decay,
        warm_up=0.1,
        clip_norm=10.0,
        log_every=LOG_EVERY,
        save_every=SAVE_EVERY,
    )
    state = Checkpoint(folder / "detector.ckpt", f"{identity}:{seed}", place.processes)
    return train_network(network, task, schedule, state, place, workers=config.workers)


def training_batch(config: TrainingConfig, source: CropSource, rng: np.random.Generator) -> DetectorBatch:
    """As many crops as a step takes, each under another scanner's look and mirrored at random."""
    items = [_as_seen(config, source(rng), rng) for _ in range(config.detector.crops_per_step)]
    volumes = torch.from_numpy(np.stack([volume for volume, _ in items]))[:, None]
    parts = [targets for _, targets in items]
    return DetectorBatch(
        volumes, Targets(*(torch.stack([getattr(part, field.name) for part in parts]) for field in fields(Targets)))
    )


def _losses(network: Detector, batch: DetectorBatch, where: Placement) -> dict[str, Tensor]:
    with where.autocast():
        maps = network(batch.volumes)
    return detector_losses(maps, batch.targets)


def _as_seen(
    config: TrainingConfig, crop: DetectorCrop, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Targets]:
    """A cube in network units, padded with air where the scan ends, and its targets."""
    hu = vary_scanner(crop.hu, rng)
    (turned_hu, turned_taught), centers = turned([hu, crop.taught], crop.centers_zyx, rng)
    volume = to_network_units(turned_hu.astype(np.float32), config.preprocessing)
    padding = [(0, config.detector.crop_voxels - n) for n in volume.shape]
    taught = np.pad(turned_taught, padding, constant_values=True).astype(bool)
    return np.pad(volume, padding).astype(np.float32), make_targets(centers, crop.diameters_mm, taught)


def _inserted_crop(
    config: TrainingConfig, backgrounds: Sequence[Background], bank: NoduleBank, rng: np.random.Generator
) -> DetectorCrop:
    """Any place in any of the lungs, with a few nodules of the bank."""
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    box = _random_box(background, config.detector.crop_voxels, rng)
    count = int(rng.integers(config.detector.nodules_per_crop[0], config.detector.nodules_per_crop[1] + 1))
    # half of the crops as LIDC is, half with more of the small and the large
    hu, nodules = populate(background, bank, count, rng, within=box, own_size=bool(rng.random() < 0.5))
    cut = tuple(slice(a, b) for a, b in zip(*box, strict=True))
    return DetectorCrop(
        hu,
        background.own_mm[cut] >= 0,
        np.asarray([n.center_zyx for n in nodules], dtype=np.float64).reshape(-1, 3),
        np.asarray([n.diameter_mm for n in nodules], dtype=np.float64),
    )


def _random_box(
    background: Background, side: int, rng: np.random.Generator
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """A cube around a random lung voxel, inside the array where the array is large enough."""
    shape = np.asarray(background.hu.shape)
    middle = background.draw_lung_voxels(rng, 1)[0] + rng.integers(-side // 4, side // 4 + 1, 3)
    start = np.clip(middle - side // 2, 0, np.maximum(shape - side, 0))
    stop = np.minimum(start + side, shape)
    return (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))


def to_network_units(hu: NDArray[np.float32], spec: PreprocessingSpec) -> NDArray[np.float32]:
    """HU to 0..1 by the spec's window, as `preprocess` does after resampling."""
    low, high = spec.window_hu
    return np.asarray(np.clip((hu - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0), dtype=np.float32)


def make_targets(centers: NDArray[np.float64], diameters: NDArray[np.float64], taught: NDArray[np.bool_]) -> Targets:
    """Targets of one crop; leading axis is the channel.

    Parameters
    ----------
    centers, diameters
        (n, 3) voxels and (n,) mm at 1 mm voxels.
    taught
        bool (z, y, x) at full resolution: False where nothing is to be learnt.
    """
    cells = [n // STRIDE for n in taught.shape]
    z, y, x = (np.arange(n) * STRIDE + (STRIDE - 1) / 2 for n in cells)
    heat = np.zeros(cells, np.float32)
    offset = np.zeros((3, *cells), np.float32)
    log_size = np.zeros(cells, np.float32)
    regress = np.zeros(cells, bool)
    for center, diameter in zip(centers, diameters, strict=True):
        nearest = np.floor(center / STRIDE).astype(int)
        if (nearest < 0).any() or (nearest >= cells).any():
            continue
        away = (z[:, None, None] - center[0]) ** 2 + (y[:, None] - center[1]) ** 2 + (x - center[2]) ** 2
        sigma = max(2.5, diameter / 6)
        bump = np.exp(-away / (2 * sigma**2)).astype(np.float32)
        np.maximum(heat, np.minimum(bump, 0.95), out=heat)
        near = bump > 0.4
        near[tuple(nearest)] = True
        for axis, line in enumerate((z[:, None, None], y[:, None], x)):
            offset[axis][near] = np.broadcast_to(center[axis] - line, cells)[near]
        log_size[near] = np.log(diameter / REFERENCE_DIAMETER_MM)
        regress |= near
        heat[tuple(nearest)] = 1.0
    seen = taught.reshape(cells[0], STRIDE, cells[1], STRIDE, cells[2], STRIDE).min(axis=(1, 3, 5))
    return Targets(
        torch.from_numpy(heat)[None],
        torch.from_numpy((seen | (heat == 1)).astype(np.float32))[None],
        torch.from_numpy(offset),
        torch.from_numpy(log_size)[None],
        torch.from_numpy(regress)[None],
    )


def detector_losses(maps: HeatMaps, targets: Targets) -> dict[str, Tensor]:
    """Penalty-reduced focal loss on the heat map (Zhou et al. 2019, Objects as Points), L1 on offset and log size."""
    logit = maps.logit.float()
    probability = torch.sigmoid(logit)
    peak = targets.heat == 1
    positive = -((1 - probability) ** 2) * logsigmoid(logit)
    negative = -((1 - targets.heat) ** 4) * probability**2 * logsigmoid(-logit)
    focal = torch.where(peak, positive, negative) * targets.weight
    peaks = peak.sum().clamp(min=1)
    cells = targets.regress.sum().clamp(min=1)
    offset = (maps.offset.float() - targets.offset).abs() * targets.regress
    size = (maps.log_size.float() - targets.log_size).abs() * targets.regress
    return {
        "heat": focal.sum() / peaks,
        "offset": 0.2 * offset.sum() / cells / 3,
        "size": size.sum() / cells,
    }
