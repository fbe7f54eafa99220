"""Detector crops from whole LUNA16 scans, with the scan's own nodules as positives.

Half of the crops hold an annotated nodule, a quarter lies at something that candidate detectors tripped over, the rest
anywhere in a lung (shares are configured). Irrelevant findings, with a margin, teach neither way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from app.evaluation.reference import Luna16Error
from app.imaging.volume import Grid
from training.config import TrainingConfig
from training.insertion import populate
from training.luna16_scans import LearningScan
from training.lung_background import FINDING_MARGIN_MM, VESSEL_HU, Background, Finding, distance_to_findings
from training.nodule_bank import NoduleBank
from training.train_detector import DetectorCrop

AXIS_RATIO = 1.5
"""Longest axis of a finding over the diameter of the sphere of its volume, at most."""
EDGE_VOXELS = 8
"""A crop that is to hold a nodule holds its centre at least this far inside."""
CUT_NODULE_MARGIN_MM = 2.0
LEAST_LUNG_VOXELS = 4096
"""A crop with less lung gets nothing inserted."""


@dataclass(frozen=True)
class Luna16Crops:
    """Draws crops: call it with a generator.

    Parameters
    ----------
    bank
        Nodules of the training patients to insert on top; None inserts nothing.
    """

    config: TrainingConfig
    scans: tuple[LearningScan, ...]
    bank: NoduleBank | None = None

    def __post_init__(self) -> None:
        if not len(self.nodules) or not self.with_false:
            raise Luna16Error("the scans to learn from hold no nodule or no false candidate; name more subsets")

    @cached_property
    def nodules(self) -> NDArray[np.intp]:
        """(n, 2) scan and number in it of every nodule: each is as likely to be drawn as any other."""
        pairs = [(s, n) for s, scan in enumerate(self.scans) for n in range(len(scan.nodules_mm))]
        return np.asarray(pairs, dtype=np.intp).reshape(-1, 2)

    @cached_property
    def with_false(self) -> tuple[int, ...]:
        """Scans that have false candidates."""
        return tuple(s for s, scan in enumerate(self.scans) if len(scan.false_zyx))

    def __call__(self, rng: np.random.Generator) -> DetectorCrop:
        """One crop, with all that LUNA16 says about what lies in it."""
        scan, middle = self._place(rng)
        shape = np.asarray(scan.grid.shape_zyx)
        side = self.config.detector.crop_voxels
        start = np.clip(middle - side // 2, 0, np.maximum(shape - side, 0))
        hu = scan.hu(start, np.minimum(start + side, shape))
        centers = scan.nodules_zyx - start
        inside = ((centers >= 0) & (centers <= np.asarray(hu.shape) - 1)).all(axis=1)
        taught = np.ones(hu.shape, bool)
        for center, diameter in zip(scan.irrelevant_zyx - start, scan.irrelevant_mm, strict=True):
            _clear(taught, center, diameter / 2 * AXIS_RATIO + FINDING_MARGIN_MM)
        for center, diameter in zip(centers[~inside], scan.nodules_mm[~inside], strict=True):
            _clear(taught, center, diameter / 2 * AXIS_RATIO + CUT_NODULE_MARGIN_MM)
        crop = DetectorCrop(hu, taught, centers[inside], scan.nodules_mm[inside])
        return crop if self.bank is None else self._with_inserted(crop, scan, start, self.bank, rng)

    def _place(self, rng: np.random.Generator) -> tuple[LearningScan, NDArray[np.int64]]:
        """A scan, and the voxel that the crop is centred on where the scan has room."""
        settings, side = self.config.luna16, self.config.detector.crop_voxels
        kind = rng.random()
        if kind < settings.nodule_crops:
            scan_number, number = self.nodules[int(rng.integers(len(self.nodules)))]
            scan = self.scans[scan_number]
            reach = max(side // 2 - EDGE_VOXELS, 0)
            return scan, np.rint(scan.nodules_zyx[number]).astype(np.int64) + rng.integers(-reach, reach + 1, 3)
        if kind < settings.nodule_crops + settings.hard_crops:
            scan = self.scans[self.with_false[int(rng.integers(len(self.with_false)))]]
            place = np.rint(scan.false_zyx[int(rng.integers(len(scan.false_zyx)))])
        else:
            scan = self.scans[int(rng.integers(len(self.scans)))]
            place = scan.lung_zyx[int(rng.integers(len(scan.lung_zyx)))]
        return scan, place.astype(np.int64) + rng.integers(-side // 4, side // 4 + 1, 3)

    def _with_inserted(
        self,
        crop: DetectorCrop,
        scan: LearningScan,
        start: NDArray[np.int64],
        bank: NoduleBank,
        rng: np.random.Generator,
    ) -> DetectorCrop:
        """The same crop with a few nodules of other scans, clear of all that the scan has of its own."""
        least, most = self.config.luna16.inserted_per_crop
        background = crop_background(crop, scan, start)
        if len(background.lung_voxels) < LEAST_LUNG_VOXELS:
            return crop
        hu, placed = populate(background, bank, int(rng.integers(least, most + 1)), rng)
        return replace(
            crop,
            hu=hu,
            centers_zyx=np.concatenate([crop.centers_zyx, np.array([n.center_zyx for n in placed]).reshape(-1, 3)]),
            diameters_mm=np.concatenate([crop.diameters_mm, [n.diameter_mm for n in placed]]),
        )


def crop_background(crop: DetectorCrop, scan: LearningScan, start_zyx: ArrayLike) -> Background:
    """A crop as the insertion of nodules needs it; distances are measured within the crop."""
    hu = crop.hu.astype(np.int16)
    grid = scan.grid.cropped(start_zyx, (hu.shape[0], hu.shape[1], hu.shape[2]))
    lungs, noise = scan.lungs_and_noise()
    in_lungs = lungs.widened_on(grid, 0.0)
    depth = _distance(in_lungs)
    vessels = in_lungs & (depth > 2.0) & (ndimage.gaussian_filter(hu.astype(np.float32), 0.6) > VESSEL_HU)
    return Background(
        hu=hu,
        in_lungs=in_lungs,
        depth_mm=depth.astype(np.float16),
        vessel_mm=_distance(~vessels).astype(np.float16),
        own_mm=distance_to_findings(grid, _own_findings(scan, grid)),
        grid=grid,
        series_uid=scan.series_uid,
        slice_spacing_mm=scan.slice_spacing_mm,
        noise=noise,
        lung_voxels=np.flatnonzero(in_lungs).astype(np.int32),
    )


def _own_findings(scan: LearningScan, grid: Grid) -> list[Finding]:
    """Nodules and irrelevant findings in or near a crop."""
    places = np.concatenate([scan.nodules_zyx, scan.irrelevant_zyx])
    diameters = np.concatenate([scan.nodules_mm, scan.irrelevant_mm]) * AXIS_RATIO
    patient = scan.grid.to_patient(places)
    index = grid.to_index(patient)
    room = (diameters / 2 + FINDING_MARGIN_MM)[:, None] + 30.0
    near = ((index > -room) & (index < np.asarray(grid.shape_zyx) + room)).all(axis=1)
    return [
        Finding((float(x), float(y), float(z)), float(d))
        for (x, y, z), d in zip(patient[near], diameters[near], strict=True)
    ]


def _distance(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """To the nearest voxel outside; far away where there is none, for which scipy has no answer."""
    if inside.all():
        return np.full(inside.shape, 60.0, np.float32)
    return np.asarray(ndimage.distance_transform_edt(inside), dtype=np.float32)


def _clear(taught: NDArray[np.bool_], center_zyx: NDArray[np.float64], radius: float) -> None:
    """Set False within a sphere, in place."""
    low = np.clip(np.floor(center_zyx - radius), 0, taught.shape).astype(int)
    high = np.clip(np.ceil(center_zyx + radius) + 1, low, taught.shape).astype(int)
    z, y, x = ((np.arange(a, b) - c) ** 2 for a, b, c in zip(low, high, center_zyx, strict=True))
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    taught[cut] &= z[:, None, None] + y[:, None] + x > radius**2
