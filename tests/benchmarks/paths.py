"""Three ways from DICOM files to candidates with the same detector, so that only the path differs.

``ours`` is the service's. ``naive`` is what a first version looks like: pydicom slices as float64, the whole scan
zoomed by scipy, cubes of 128 with half overlap. ``simpleitk`` is the careful classic: its series reader, resampler
and filters, cubes with a quarter overlap. Both baselines find the lungs by threshold, components and closing at 1 mm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.lungs import segment_lungs
from app.imaging.preprocessing import preprocess
from app.imaging.reading import read_ct
from app.imaging.volume import Grid
from app.inference.boxes import centers, non_maximum_suppression
from app.inference.detection import detect
from app.inference.findings import Candidate
from app.inference.model_store import LoadedModel

CUBE = 128
_LUNG_HU = -400
_CLOSING_MM = 5
_SMALLEST_LUNG_ML = 100.0


@dataclass
class Found:
    """Seconds by stage, candidates, and how often the detector ran."""

    seconds: dict[str, float] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list)
    windows: int = 1

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began


def ours(series: Path, model: LoadedModel, threads: int) -> Found:
    """The service's own stages."""
    found = Found()
    with found.timed("read"):
        volume, _ = read_ct(series)
    with found.timed("mask"):
        lungs = segment_lungs(volume)
    with found.timed("prepare"):
        prepared = preprocess(volume, lungs, model.manifest.preprocessing, threads=threads)
    with found.timed("network"):
        found.candidates = detect(prepared, model)
    return found


def naive(series: Path, model: LoadedModel, threads: int) -> Found:
    """pydicom, scipy, half overlap."""
    del threads  # scipy has none
    spec, found = model.manifest.preprocessing, Found()
    with found.timed("read"):
        slices = sorted((pydicom.dcmread(path) for path in series.iterdir()), key=lambda s: s.ImagePositionPatient[2])
        hu = np.stack([s.pixel_array.astype(np.float64) * s.RescaleSlope + s.RescaleIntercept for s in slices])
        origin = np.asarray(slices[0].ImagePositionPatient, dtype=float)
        slice_mm = float(slices[1].ImagePositionPatient[2] - slices[0].ImagePositionPatient[2])
        spacing = np.array([slice_mm, *map(float, slices[0].PixelSpacing)])
    with found.timed("prepare"):
        resampled = ndimage.zoom(hu, spacing / spec.spacing_mm, order=1)
        # zoom keeps the outermost voxel centres where they are.
        step = (np.array(hu.shape) - 1) * spacing / (np.array(resampled.shape) - 1)
    with found.timed("mask"):
        air = ndimage.binary_erosion(resampled < _LUNG_HU)
        parts, count = ndimage.label(air)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[np.unique(np.concatenate([parts[:, edge].ravel() for edge in (0, -1)]))] = 0
        sizes[0] = 0
        lungs = np.isin(parts, np.flatnonzero(sizes * spec.spacing_mm**3 / 1000 > _SMALLEST_LUNG_ML))
        lungs = ndimage.binary_closing(lungs, iterations=_CLOSING_MM)
    box = _box_around(lungs, spec.lung_margin_mm / spec.spacing_mm)
    low, high = spec.window_hu
    windowed = np.clip((resampled[box] - low) / (high - low), 0, 1).astype(np.float32)
    start = np.array([b.start for b in box])
    grid = Grid.from_spacing(windowed.shape, step, origin + (start * step)[::-1])
    with found.timed("network"):
        found.candidates, found.windows = in_cubes(windowed, grid, model, overlap=0.5)
    return found


def simpleitk(series: Path, model: LoadedModel, threads: int) -> Found:
    """SimpleITK, a quarter overlap."""
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    spec, found = model.manifest.preprocessing, Found()
    with found.timed("read"):
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
        image = reader.Execute()
    with found.timed("prepare"):
        mm = spec.spacing_mm
        size = [int(np.ceil(n * s / mm)) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
        resampled = SimpleITK.Resample(
            image, size, SimpleITK.Transform(), SimpleITK.sitkLinear, image.GetOrigin(), (mm,) * 3,
            image.GetDirection(), -1024.0, SimpleITK.sitkFloat32,
        )  # fmt: skip
    with found.timed("mask"):
        # Eroded, or thin places of the chest wall join lungs and room.
        air = SimpleITK.BinaryErode(SimpleITK.BinaryThreshold(resampled, -3000, _LUNG_HU), [1] * 3, SimpleITK.sitkCross)
        smallest = int(_SMALLEST_LUNG_ML * 1000 / mm**3)
        labels = SimpleITK.GetArrayFromImage(SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(air), smallest))
        outside = np.unique(np.concatenate([labels[:, edge].ravel() for edge in (0, -1)]))
        inside = np.isin(labels, np.setdiff1d(np.arange(1, labels.max() + 1), outside)).astype(np.uint8)
        # Only the box of what was found is closed: on the whole scan this filter takes three times as long.
        near = _box_around(inside, 2 * _CLOSING_MM)
        closing = SimpleITK.BinaryMorphologicalClosing(SimpleITK.GetImageFromArray(inside[near]), [_CLOSING_MM] * 3)
        lungs = np.zeros(inside.shape, bool)
        lungs[near] = SimpleITK.GetArrayFromImage(closing) > 0
    box = _box_around(lungs, spec.lung_margin_mm / mm)
    values = SimpleITK.GetArrayFromImage(SimpleITK.IntensityWindowing(resampled, *spec.window_hu, 0.0, 1.0))
    start = np.array([b.start for b in box])
    origin = np.array(resampled.GetOrigin()) + (start * mm)[::-1]
    grid = Grid.from_spacing(values[box].shape, (mm,) * 3, origin)
    with found.timed("network"):
        found.candidates, found.windows = in_cubes(values[box], grid, model, overlap=0.25)
    return found


def in_cubes(
    values: NDArray[np.float32], grid: Grid, model: LoadedModel, overlap: float
) -> tuple[list[Candidate], int]:
    """Overlapping cubes, all boxes together, suppression: candidates and the number of cubes."""
    entry = model.manifest.detector
    padded = np.pad(values, [(0, max(0, CUBE - n)) for n in values.shape])
    starts = [_starts(n, overlap) for n in padded.shape]
    boxes, scores = [], []
    for start in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3):
        z, y, x = start
        cube = np.ascontiguousarray(padded[z : z + CUBE, y : y + CUBE, x : x + CUBE])
        said = model.detector({"volume": cube[None, None]})
        kept = said["scores"][0] >= entry.score_threshold
        boxes.append(said["boxes"][0][kept] + np.tile(start, 2))
        scores.append(said["scores"][0][kept])
    box, score = np.concatenate(boxes).astype(np.float64), np.concatenate(scores).astype(np.float64)
    best = non_maximum_suppression(box, score, entry.nms_iou)[: entry.max_candidates]
    where = grid.to_patient(centers(box[best]))
    diameters = (box[best, 3:] - box[best, :3]).mean(axis=1) * float(grid.spacing_zyx_mm.mean())
    found = zip(where, diameters, score[best], strict=True)
    return [Candidate((float(p[0]), float(p[1]), float(p[2])), float(d), float(s)) for p, d, s in found], len(boxes)


def _starts(length: int, overlap: float) -> list[int]:
    """First index of every cube along an axis; the last one ends with the axis."""
    step = int(CUBE * (1 - overlap))
    return [*range(0, max(1, length - CUBE), step), length - CUBE] if length > CUBE else [0]


def _box_around(mask: NDArray[np.bool_] | NDArray[np.uint8], margin: float) -> tuple[slice, ...]:
    box = []
    for axis, size in enumerate(mask.shape):
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not occupied.size:
            raise SystemExit("this path found no lungs")
        box.append(slice(max(0, int(occupied[0] - margin)), min(size, int(np.ceil(occupied[-1] + 1 + margin)))))
    return tuple(box)


PATHS: dict[str, Callable[[Path, LoadedModel, int], Found]] = {"ours": ours, "naive": naive, "simpleitk": simpleitk}
