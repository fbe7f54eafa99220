"""LUNA16's scans made ready one by one and cached: the lung box at 1 mm, opened piece by piece and never as a whole.

A cached scan is two files: ``<series>.hu.npy`` (int16, mapped into memory where a crop is read) and ``<series>.npz``
(where its voxels lie, places in the lungs, the lung mask, the noise). Both come from the functions that serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from app.evaluation.reference import Annotation, Luna16Error
from app.imaging.errors import NotChestCt, ScanError
from app.imaging.lungs import LEFT, RIGHT, WORKING_SPACING_MM, LungMask, segment_lungs
from app.imaging.preprocessing import PreprocessingSpec, preprocess
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume, Grid, canonical
from training.luna16 import Luna16Case
from training.lung_background import VESSEL_HU, NoiseModel, estimate_noise

LUNG_POINTS = 4096
"""Places kept of each pair of lungs to centre crops on."""
NOISE_SLICES = 96
PUBLISHED_LEFT, PUBLISHED_RIGHT = 3, 4
"""Values in seg-lungs-LUNA16; 5 is the trachea."""


@dataclass(frozen=True)
class LearningScan:
    """One cached scan with what is learnt from it; a few ten kilobytes, the voxels stay on disk.

    Parameters
    ----------
    grid
        Of the cached voxels.
    nodules_zyx, nodules_mm
        (n, 3) voxels and (n,) diameters of the annotated nodules.
    irrelevant_zyx, irrelevant_mm
        The same of the irrelevant findings; 10 mm where only a place is published.
    false_zyx
        float32 (m, 3): candidates that are neither nodule nor irrelevant finding.
    lung_zyx
        int16 (k, 3): random places in the lungs.
    """

    series_uid: str
    patient_id: str
    folder: Path
    grid: Grid
    slice_spacing_mm: float
    nodules_zyx: NDArray[np.float64]
    nodules_mm: NDArray[np.float64]
    irrelevant_zyx: NDArray[np.float64]
    irrelevant_mm: NDArray[np.float64]
    false_zyx: NDArray[np.float32]
    lung_zyx: NDArray[np.int16]

    def hu(self, start_zyx: ArrayLike, stop_zyx: ArrayLike) -> NDArray[np.float32]:
        """A box of the cached voxels in HU."""
        cut = tuple(slice(int(a), int(b)) for a, b in zip(np.asarray(start_zyx), np.asarray(stop_zyx), strict=True))
        voxels = np.load(voxels_path(self.folder, self.series_uid), mmap_mode="r")
        return np.asarray(voxels[cut], dtype=np.float32)

    def lungs_and_noise(self) -> tuple[LungMask, NoiseModel]:
        """What inserting needs besides the voxels."""
        with np.load(facts_path(self.folder, self.series_uid)) as stored:
            labels = stored["lung_labels"]
            return LungMask(labels, Grid(labels.shape, stored["lung_affine"])), NoiseModel(stored["noise_hu"])


def voxels_path(folder: Path, series_uid: str) -> Path:
    """The scan's voxels in the cache."""
    return folder / f"{series_uid}.hu.npy"


def facts_path(folder: Path, series_uid: str) -> Path:
    """Everything else of the scan; written last, so that the scan is cached when this is there."""
    return folder / f"{series_uid}.npz"


def read_image(path: Path) -> CtVolume:
    """One ``.mhd`` with its samples.

    Raises
    ------
    Luna16Error
        If it cannot be read; the message names the series.
    """
    samples = [path.with_suffix(suffix) for suffix in (".raw", ".zraw")]
    try:
        return read_ct([path, *(each for each in samples if each.exists())])[0]
    except ScanError as error:
        raise Luna16Error(f"series {path.stem}: {error}; unpack its archive again") from error


def cache_scan(case: Luna16Case, volume: CtVolume, spec: PreprocessingSpec, folder: Path) -> None:
    """Write both files of a scan; what is there already is written anew.

    Raises
    ------
    Luna16Error
        If no lungs are found and none are published.
    """
    if spec.spacing_mm != 1.0:
        raise Luna16Error(f"the detector learns at 1 mm, preprocessing.spacing_mm is {spec.spacing_mm}")
    lungs = lungs_of(case, volume, spec.lung_margin_mm)
    prepared = preprocess(volume, lungs, spec)
    low, high = spec.window_hu
    hu = np.round(prepared.values * (high - low) + low).astype(np.int16)
    in_lungs = lungs.widened_on(prepared.grid, 0.0)
    places = np.flatnonzero(in_lungs)
    drawn = np.random.default_rng(0).choice(places, min(LUNG_POINTS, len(places)), replace=False)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(voxels_path(folder, case.series_uid), hu)
    _replace(
        facts_path(folder, case.series_uid),
        {
            "affine": prepared.grid.affine,
            "shape_zyx": np.asarray(hu.shape),
            "slice_spacing_mm": np.asarray(volume.grid.spacing_zyx_mm.max()),
            "lung_zyx": np.stack(np.unravel_index(drawn, hu.shape), axis=1).astype(np.int16),
            "lung_labels": lungs.labels,
            "lung_affine": lungs.grid.affine,
            "noise_hu": _noise(hu, in_lungs).tile_hu,
        },
    )


def load_scan(case: Luna16Case, folder: Path) -> LearningScan:
    """What is learnt from a cached scan: its own facts, and LUNA16's of today."""
    with np.load(facts_path(folder, case.series_uid)) as stored:
        z, y, x = (int(n) for n in stored["shape_zyx"])
        grid = Grid((z, y, x), stored["affine"])
        spacing, lung_zyx = float(stored["slice_spacing_mm"]), stored["lung_zyx"]
    false = false_candidates_lps_mm(case)
    return LearningScan(
        series_uid=case.series_uid,
        patient_id=case.patient_id,
        folder=folder,
        grid=grid,
        slice_spacing_mm=spacing,
        nodules_zyx=grid.to_index(centers_lps_mm(case.nodules)),
        nodules_mm=2 * radii_mm(case.nodules),
        irrelevant_zyx=grid.to_index(centers_lps_mm(case.irrelevant)),
        irrelevant_mm=2 * radii_mm(case.irrelevant),
        false_zyx=grid.to_index(false).astype(np.float32),
        lung_zyx=lung_zyx,
    )


def false_candidates_lps_mm(case: Luna16Case) -> NDArray[np.float64]:
    """(m, 3) published candidates of class 0 that hit neither a nodule nor an irrelevant finding."""
    places = np.array([c.center_lps_mm for c in case.candidates if not c.is_nodule]).reshape(-1, 3)
    explained = hits(places, case.nodules).any(axis=1) | hits(places, case.irrelevant).any(axis=1)
    return np.asarray(places[~explained])


def hits(places_lps_mm: NDArray[np.float64], findings: tuple[Annotation, ...]) -> NDArray[np.bool_]:
    """(n, findings) whether a place lies strictly within a finding's radius, as LUNA16 counts."""
    offset = places_lps_mm[:, None] - centers_lps_mm(findings)[None]
    return np.asarray((offset**2).sum(axis=2) < radii_mm(findings) ** 2)


def centers_lps_mm(findings: tuple[Annotation, ...]) -> NDArray[np.float64]:
    """(n, 3) centres."""
    return np.array([finding.center_lps_mm for finding in findings], dtype=np.float64).reshape(-1, 3)


def radii_mm(findings: tuple[Annotation, ...]) -> NDArray[np.float64]:
    """(n,) radii that a hit is judged by."""
    return np.array([finding.hit_radius_mm for finding in findings], dtype=np.float64)


def lungs_of(case: Luna16Case, volume: CtVolume, margin_mm: float) -> LungMask:
    """The service's own lung mask; the published one where the service finds none or leaves a nodule out of its box."""
    try:
        lungs = segment_lungs(volume)
    except NotChestCt as error:
        if case.lungs_path is None:
            raise Luna16Error(f"series {case.series_uid}: {error}, and seg-lungs-LUNA16 has no mask of it") from error
        return published_lungs(case.lungs_path)
    corners = volume.grid.to_index(lungs.box_corners_lps_mm())
    margin = margin_mm / volume.grid.spacing_zyx_mm
    places = volume.grid.to_index(centers_lps_mm(case.nodules))
    inside = (places >= corners.min(axis=0) - margin) & (places <= corners.max(axis=0) + margin)
    return lungs if inside.all() or case.lungs_path is None else published_lungs(case.lungs_path)


def published_lungs(path: Path) -> LungMask:
    """A mask of seg-lungs-LUNA16 on a coarse grid, as the service keeps lungs.

    Raises
    ------
    Luna16Error
        If there are no lungs in it.
    """
    values, grid = canonical(read_image(path))
    steps = np.maximum(1, np.round(WORKING_SPACING_MM / grid.spacing_zyx_mm)).astype(int)
    coarse = values[:: steps[0], :: steps[1], :: steps[2]]
    labels: NDArray[np.uint8] = np.zeros(coarse.shape, np.uint8)
    labels[coarse == PUBLISHED_LEFT] = LEFT
    labels[coarse == PUBLISHED_RIGHT] = RIGHT
    if not labels.any():
        raise Luna16Error(f"the lung mask of series {path.stem} is empty; unpack seg-lungs-LUNA16 again")
    affine = grid.affine.copy()
    affine[:3, :3] *= steps
    z, y, x = (int(n) for n in labels.shape)
    return LungMask(labels, Grid((z, y, x), affine))


def _noise(hu: NDArray[np.int16], in_lungs: NDArray[np.bool_]) -> NoiseModel:
    """The scan's noise, from lung away from its border and from vessels in the middle of the scan."""
    middle = len(hu) // 2
    slab = slice(max(middle - NOISE_SLICES // 2, 0), middle + NOISE_SLICES // 2)
    lung, values = in_lungs[slab], hu[slab].astype(np.float32)
    inner = ndimage.binary_erosion(lung, iterations=4)
    vessels = lung & (ndimage.gaussian_filter(values, 0.6) > VESSEL_HU)
    return estimate_noise(hu[slab], inner & ~ndimage.binary_dilation(vessels, iterations=2))


def _replace(path: Path, content: NDArray[Any] | dict[str, NDArray[Any]]) -> None:
    """Write beside and rename, so that a killed process leaves no half file."""
    half_written = path.with_name(f".{path.name}.part")
    with half_written.open("wb") as file:
        if isinstance(content, dict):
            np.savez(file, allow_pickle=False, **content)
        else:
            np.save(file, content, allow_pickle=False)
    half_written.replace(path)
