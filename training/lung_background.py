"""Real lungs to insert nodules into: 1 mm HU, where lung and vessels are, and what to keep away from."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from app.imaging.lungs import LungMask, segment_lungs
from app.imaging.preprocessing import PreprocessingSpec, preprocess
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume, Grid
from training.lidc import patient_of_series

INSERTION_SPEC = PreprocessingSpec()
"""1 mm, -1024..400 HU: the windowed values go back to HU without loss inside the window."""
FINDING_MARGIN_MM = 5.0
UNSIZED_DIAMETER_MM = 10.0
"""LUNA16's diameter for a finding without one (-1)."""
VESSEL_HU = -500.0
_FAR_MM = 60.0
_NOISE_BLOCK = 24


@dataclass(frozen=True)
class Finding:
    """Something the scan has of its own, as a sphere in patient space."""

    center_lps_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True)
class NoiseModel:
    """Noise with a scan's own standard deviation and correlation, as a periodic block of HU."""

    tile_hu: NDArray[np.float32]

    @property
    def std_hu(self) -> float:
        """Standard deviation in HU."""
        return float(self.tile_hu.std())

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
        """A block of noise, cut at random from the tile."""
        tile = self.tile_hu
        axes = [(rng.integers(tile.shape[i]) + np.arange(n)) % tile.shape[i] for i, n in enumerate(shape)]
        return np.asarray(tile[np.ix_(*axes)])


@dataclass(frozen=True)
class Background:
    """One scan made ready for insertion.

    Parameters
    ----------
    hu
        int16 (z, y, x) at isotropic 1 mm, clipped to the spec's window; same voxels as `preprocess` makes of the scan.
    in_lungs
        bool (z, y, x): lung, vessels in it included.
    depth_mm, vessel_mm, own_mm
        float16 (z, y, x): distance to the lung's border, to the nearest vessel (0 in one), and to the nearest own
        finding of the scan with its margin (negative inside it).
    grid, series_uid
        Where the voxels lie; whose they are.
    slice_spacing_mm
        Slice spacing of the original scan.
    noise
        The scan's noise.
    """

    hu: NDArray[np.int16]
    in_lungs: NDArray[np.bool_]
    depth_mm: NDArray[np.float16]
    vessel_mm: NDArray[np.float16]
    own_mm: NDArray[np.float16]
    grid: Grid
    series_uid: str
    slice_spacing_mm: float
    noise: NoiseModel
    lung_voxels: NDArray[np.int32]
    """Flat indices of ``in_lungs``."""

    @property
    def avoid(self) -> NDArray[np.bool_]:
        """Own findings with their margin, bool (z, y, x)."""
        return np.asarray(self.own_mm < 0)

    @property
    def distances(self) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
        """Depth, vessel and own-finding distances."""
        return self.depth_mm, self.vessel_mm, self.own_mm

    def draw_lung_voxels(
        self, rng: np.random.Generator, count: int, within: tuple[ArrayLike, ArrayLike] | None = None
    ) -> NDArray[np.int64]:
        """Random voxels (n, 3) in the lung; at most ``count``, fewer where the box ``within`` holds little lung."""
        if within is None:
            flat = self.lung_voxels[rng.integers(len(self.lung_voxels), size=count)]
            return np.stack(np.unravel_index(flat, self.hu.shape), axis=1)
        low = np.clip(np.asarray(within[0]), 0, self.hu.shape)
        high = np.clip(np.asarray(within[1]), low + 1, self.hu.shape)
        voxels = rng.integers(np.minimum(low, high - 1), high, size=(count, 3))
        return np.asarray(voxels[self.in_lungs[tuple(voxels.T)]])

    def wall_direction(self, center_zyx: ArrayLike) -> NDArray[np.float64]:
        """Unit vector (z, y, x) from a voxel to the nearest border of the lung."""
        center = np.asarray(center_zyx, dtype=np.int64)
        last = np.asarray(self.hu.shape) - 1
        slope = np.empty(3)
        for axis in range(3):
            step = np.zeros(3, np.int64)
            step[axis] = 3
            ahead, behind = np.clip(center + step, 0, last), np.clip(center - step, 0, last)
            slope[axis] = float(self.depth_mm[tuple(behind)]) - float(self.depth_mm[tuple(ahead)])
        length = float(np.linalg.norm(slope))
        return slope / length if length > 0 else np.asarray([0.0, 0.0, 1.0])


def prepare_background(
    path: Path, data: Path, spec: PreprocessingSpec = INSERTION_SPEC, *, more_findings: Iterable[Finding] = ()
) -> Background:
    """Read a scan and make it ready.

    Parameters
    ----------
    path
        The scan: `.mha` or a zipped DICOM series.
    data
        Folder with `luna16/annotations.csv` and `luna16/annotations_excluded.csv`; every row of this series is avoided.
    spec
        Must have spacing 1 mm.
    more_findings
        Findings to avoid beyond LUNA16's.

    Raises
    ------
    app.imaging.errors.ScanError
        As `read_ct`.
    """
    volume, report = read_ct(path)
    series = report.chosen.series_instance_uid or lidc_series_uid(path.stem)
    findings = [*luna16_findings(data, series), *more_findings]
    return background_from_volume(volume, segment_lungs(volume), series, findings, spec)


def background_from_volume(
    volume: CtVolume,
    lungs: LungMask,
    series_uid: str,
    findings: Iterable[Finding],
    spec: PreprocessingSpec = INSERTION_SPEC,
) -> Background:
    """The background of a volume that is at hand already."""
    if spec.spacing_mm != 1.0:
        raise ValueError(f"nodules are inserted at 1 mm, the spec has {spec.spacing_mm} mm")
    prepared = preprocess(volume, lungs, spec)
    low, high = spec.window_hu
    hu = np.round(prepared.values * (high - low) + low).astype(np.int16)
    in_lungs = lungs.widened_on(prepared.grid, 0.0)
    depth = ndimage.distance_transform_edt(in_lungs)
    vessels = in_lungs & (depth > 2.0) & (ndimage.gaussian_filter(hu.astype(np.float32), 0.6) > VESSEL_HU)
    away = ndimage.distance_transform_edt(~vessels)
    return Background(
        hu=hu,
        in_lungs=in_lungs,
        depth_mm=depth.astype(np.float16),
        vessel_mm=away.astype(np.float16),
        own_mm=distance_to_findings(prepared.grid, findings),
        grid=prepared.grid,
        series_uid=series_uid,
        slice_spacing_mm=float(volume.grid.spacing_zyx_mm.max()),
        noise=estimate_noise(hu, in_lungs & (depth > 4.0) & (away > 2.0)),
        lung_voxels=np.flatnonzero(in_lungs).astype(np.int32),
    )


def luna16_findings(data: Path, series_uid: str) -> list[Finding]:
    """Every row of LUNA16's annotations and irrelevant findings for a series."""
    found = []
    for name in ("annotations.csv", "annotations_excluded.csv"):
        with (data / "luna16" / name).open() as rows:
            for row in csv.DictReader(rows):
                if row["seriesuid"] == series_uid:
                    diameter = float(row["diameter_mm"])
                    center = (float(row["coordX"]), float(row["coordY"]), float(row["coordZ"]))
                    # the longest axis, which is up to 1.5 times the diameter of the sphere of equal volume
                    found.append(Finding(center, diameter * 1.5 if diameter > 0 else UNSIZED_DIAMETER_MM))
    return found


def lidc_series_uid(patient_id: str) -> str:
    """Series of an LIDC patient with one scan; MetaImage files are named after their patient and carry no UID.

    Raises
    ------
    ValueError
        If LIDC does not have exactly one scan of that patient.
    """
    series = [uid for uid, patient in patient_of_series().items() if patient == patient_id]
    if len(series) != 1:
        raise ValueError(f"LIDC has {len(series)} series of the patient that the file is named after, expected 1")
    return series[0]


def estimate_noise(hu: NDArray[np.int16], parenchyma: NDArray[np.bool_], *, tile: int = 64) -> NoiseModel:
    """Noise of a scan from its vessel-free lung: standard deviation and autocorrelation.

    Blocks that are mostly parenchyma give a mean autocorrelation; a Gaussian field with its spectrum is the tile.
    """
    side = _NOISE_BLOCK
    total, weight = np.zeros((side,) * 3), 0.0
    starts = [range(0, n - side + 1, side) for n in hu.shape]
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3):
        cut = tuple(slice(c, c + side) for c in corner)
        mask = parenchyma[cut]
        if mask.mean() < 0.5:
            continue
        block = hu[cut].astype(np.float64)
        residual = np.where(mask, block - _local_mean(block, mask), 0.0)
        spread = 1.4826 * np.median(np.abs(residual[mask]))
        residual[np.abs(residual) > 3 * spread] = 0.0
        total += np.abs(np.fft.fftn(residual)) ** 2 / mask.mean()
        weight += residual.size
    if weight == 0.0:
        return NoiseModel(np.zeros((tile,) * 3, np.float32))
    return NoiseModel(_field_with_correlation(np.fft.ifftn(total / weight).real, tile))


def _local_mean(block: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    weight = ndimage.gaussian_filter(mask.astype(np.float64), 2.5)
    return np.asarray(ndimage.gaussian_filter(np.where(mask, block, 0.0), 2.5) / np.maximum(weight, 1e-3))


def _field_with_correlation(correlation: NDArray[np.float64], tile: int) -> NDArray[np.float32]:
    """A fixed periodic Gaussian field with a given autocorrelation (origin at index 0)."""
    side = len(correlation)
    centred = np.fft.fftshift(correlation)
    before = tile // 2 - side // 2
    padded = np.fft.ifftshift(np.pad(centred, (before, tile - side - before)))
    amplitude = np.sqrt(np.maximum(np.fft.fftn(padded).real, 0.0))
    white = np.random.default_rng(0).standard_normal((tile,) * 3)
    field = np.fft.ifftn(np.fft.fftn(white) * amplitude).real
    return np.asarray(field * np.sqrt(correlation.flat[0]) / max(field.std(), 1e-9), dtype=np.float32)


def distance_to_findings(grid: Grid, findings: Iterable[Finding]) -> NDArray[np.float16]:
    """Distance in mm to the nearest finding widened by its margin, at most `_FAR_MM`; negative inside."""
    distance = np.full(grid.shape_zyx, _FAR_MM, np.float32)
    spacing = grid.spacing_zyx_mm
    for finding in findings:
        center = grid.to_index(finding.center_lps_mm)
        reach = (finding.diameter_mm / 2 + FINDING_MARGIN_MM + _FAR_MM) / spacing
        low = np.clip(np.floor(center - reach), 0, grid.shape_zyx).astype(int)
        high = np.clip(np.ceil(center + reach) + 1, low, grid.shape_zyx).astype(int)
        axes = [(np.arange(low[i], high[i]) - center[i]) * spacing[i] for i in range(3)]
        square = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
        cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        distance[cut] = np.minimum(distance[cut], np.sqrt(square) - finding.diameter_mm / 2 - FINDING_MARGIN_MM)
    return distance.astype(np.float16)
