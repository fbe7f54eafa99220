"""Every mark in scans as they were acquired, cut out in three planes: what was found there is to be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from app.evaluation.froc import Mark
from app.evaluation.reference import Point
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from training.config import TrainingConfig
from training.detection_evaluation import ScanTrial
from training.evaluation_result import Evaluation
from training.lung_evaluation import LungTrials
from training.plots import grey_png

SIDE_MM, PIXEL_MM = 50.0, 0.5
WINDOW_HU = (-1000.0, 400.0)
AIR_HU = -1024.0
MAX_ROWS, ROWS_BELOW_THRESHOLD = 12, 3
MAX_BYTES = 120_000
READERS_OF_LIDC = 4
PLANES = ("axial", "coronal", "sagittal")
NODULE, IRRELEVANT, FALSE = "nodule", "irrelevant finding", "false mark"

_GAP_PX, _HEAD_PX, _FOOT_PX, _TEXT_PX, _TICK_PX, _DPI = 4, 22, 22, 190, 7, 100
_NOTICE = "Research use only. Not for diagnosis."


@dataclass(frozen=True)
class MarkPicture:
    """One scan's marks as a grey PNG of at most `MAX_BYTES`."""

    name: str
    """A file name without suffix."""
    png: bytes
    caption: str


def what_is_marked(trial: ScanTrial, mark: Mark) -> str:
    """`NODULE`, `IRRELEVANT` or `FALSE` by LUNA16's rule: strictly inside the radius, and a nodule comes first."""
    if any(_inside(mark, nodule.center_lps_mm, nodule.diameter_mm) for nodule in trial.truths):
        return NODULE
    if any(_inside(mark, finding.center_lps_mm, finding.diameter_mm) for finding in trial.irrelevant):
        return IRRELEVANT
    return FALSE


def shown_marks(trial: ScanTrial, threshold: float) -> tuple[Mark, ...]:
    """Marks at or above the threshold by falling probability; where there are none, the most probable three."""
    ranked = sorted(trial.marks, key=lambda mark: -mark.probability)
    above = [mark for mark in ranked if mark.probability >= threshold]
    return tuple(above[:MAX_ROWS] or ranked[:ROWS_BELOW_THRESHOLD])


def mark_pictures(config: TrainingConfig, evaluation: Evaluation) -> tuple[MarkPicture, ...]:
    """A picture of each scan in which anything was marked, read again from `data.root`.

    Raises
    ------
    app.imaging.errors.ScanError
        As `read_ct`.
    """
    return tuple(picture for lungs in evaluation.lungs.values() for picture in _pictures_of_fold(config, lungs))


def write_mark_pictures(folder: Path, pictures: Sequence[MarkPicture]) -> tuple[Path, ...]:
    """``folder/<name>.png`` for each picture."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{picture.name}.png" for picture in pictures)
    for path, picture in zip(paths, pictures, strict=True):
        path.write_bytes(picture.png)
    return paths


def mark_picture(volume: CtVolume, trial: ScanTrial, threshold: float, *, fold: int) -> MarkPicture:
    """One row for each of `shown_marks`: axial, coronal and sagittal view, probability, and what is there.

    Parameters
    ----------
    threshold
        Of the default operating point.
    fold
        Whose networks said it.
    """
    marks = shown_marks(trial, threshold)
    return MarkPicture(
        name=f"marks-fold{fold}-{trial.name}",
        png=grey_png(_draw(volume, trial, marks, threshold), MAX_BYTES),
        caption=f"{trial.name} as acquired, networks of fold {fold}. {_which(trial, threshold)}",
    )


def planes_hu(volume: CtVolume, center_lps_mm: Point) -> NDArray[np.float32]:
    """Axial, coronal and sagittal plane through a point, as a reader sees them.

    Returns
    -------
    numpy.ndarray
        float32 HU (3, n, n), `SIDE_MM` wide; the point lies at row and column n // 2. The patient's right is at the
        left of the first two, the front at the left of the third; the front, then twice the head, is up. Outside the
        scan it is air.
    """
    n = round(SIDE_MM / PIXEL_MM)
    down, across = np.meshgrid(*[(np.arange(n) - n // 2) * PIXEL_MM] * 2, indexing="ij")
    zero = np.zeros_like(across)
    offsets = np.stack([(across, down, zero), (across, zero, -down), (zero, across, -down)])
    points = np.moveaxis(offsets, 1, -1).reshape(-1, 3) + np.asarray(center_lps_mm)
    index = volume.grid.to_index(points)
    hu = ndimage.map_coordinates(volume.hu, index.T, order=1, mode="constant", cval=AIR_HU, output=np.float32)
    return np.asarray(hu).reshape(3, n, n)


def _pictures_of_fold(config: TrainingConfig, lungs: LungTrials) -> Iterator[MarkPicture]:
    path_of = {Path(scan).stem: config.data.root / scan for scan in config.data.held_out_scans(lungs.fold)}
    for trial in lungs.acquired:
        if trial.marks:
            volume, _ = read_ct(path_of[trial.name])
            yield mark_picture(volume, trial, lungs.threshold, fold=lungs.fold)


def _inside(mark: Mark, center_lps_mm: Point, diameter_mm: float) -> bool:
    offset = np.subtract(mark.center_lps_mm, center_lps_mm)
    return bool((offset**2).sum() < (diameter_mm / 2) ** 2)


def _which(trial: ScanTrial, threshold: float) -> str:
    above = sum(mark.probability >= threshold for mark in trial.marks)
    if not above:
        return f"No mark reaches the default threshold of {threshold:.3f}; the most probable are shown."
    shown = f", the first {MAX_ROWS} shown" if above > MAX_ROWS else ""
    marks = "1 mark" if above == 1 else f"{above} marks"
    return f"{marks} at or above the default threshold of {threshold:.3f}{shown}."


def _draw(volume: CtVolume, trial: ScanTrial, marks: Sequence[Mark], threshold: float) -> Figure:
    side = round(SIDE_MM / PIXEL_MM)
    step = side + _GAP_PX
    width, height = 3 * step + _TEXT_PX, _HEAD_PX + len(marks) * step + _FOOT_PX
    # Views are put at whole pixels: anything that scaled them would blur what is to be judged.
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="black")

    def write(text: str, x_px: float, y_px: float) -> None:
        figure.text(x_px / width, y_px / height, text, color="white", fontsize=7, va="top")

    for column, plane in enumerate((*PLANES, f"{trial.name}, {SIDE_MM:g} mm")):
        write(plane, column * step + _GAP_PX, height - 5)
    for row, mark in enumerate(marks):
        top = height - _HEAD_PX - row * step
        for column, hu in enumerate(planes_hu(volume, mark.center_lps_mm)):
            low, high = WINDOW_HU
            figure.figimage(_ticked(hu), column * step, top - side, cmap="gray", vmin=low, vmax=high, origin="upper")
        write(_label(row + 1, trial, mark, threshold), 3 * step + _GAP_PX, top - 8)
    write(_NOTICE, _GAP_PX, _FOOT_PX - 5)
    return figure


def _ticked(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ticks at the edges point to the mark and hide nothing of it."""
    ticked, middle = hu.copy(), len(hu) // 2
    for edge in (slice(_TICK_PX), slice(-_TICK_PX, None)):
        ticked[middle, edge] = ticked[edge, middle] = WINDOW_HU[1]
    return ticked


def _label(number: int, trial: ScanTrial, mark: Mark, threshold: float) -> str:
    lines = [f"{number}. {what_is_marked(trial, mark)}", f"probability {mark.probability:.3f}"]
    if mark.probability < threshold:
        lines.append("below the threshold")
    for nodule in trial.truths:
        if _inside(mark, nodule.center_lps_mm, nodule.diameter_mm):
            lines.append(f"annotated, {nodule.diameter_mm:.1f} mm")
            if nodule.readers:
                lines.append(f"outlined by {nodule.readers} of {READERS_OF_LIDC} readers")
    return "\n".join(lines)
