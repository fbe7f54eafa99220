"""Which voxels mattered for one nodule: what the characteriser says when a part of what it sees is covered with lung.

Occlusion needs no gradients, so it runs through the very network that is served. It explains the characteriser alone:
the detector's share of the final probability is not in it. It costs hundreds of passes and is made on demand only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocessing import CropSpec, sample_crops
from app.imaging.volume import CtVolume
from app.inference.characterisation import BATCH, ask_characteriser
from app.inference.findings import Candidate, Point
from app.inference.model_store import LoadedModel
from app.inference.outlining import outline

BLOCK_MM = 5.6
"""Edge of what is covered at a time; steps are half of it."""
_LUNG_BELOW_HU = -500.0
_USUAL_LUNG_HU = -850.0
_LEAST = 1e-6

_ASKED = ("nodule_probability", "malignancy_probability")
Block = tuple[slice, slice, slice]
OnStep = Callable[[float], None]


@dataclass(frozen=True)
class Explanation:
    """What mattered, on the crop that the network saw.

    Parameters
    ----------
    nodule_importance, malignancy_importance
        float32 (slices, rows, columns): mean fall of the log-odds over all blocks that cover a voxel. Positive: the
        probability falls without it.
    crop
        float32 of the same shape: what the network saw, in network units.
    outline
        bool of the same shape: the nodule's outline on these slices.
    """

    nodule_probability: float
    malignancy_probability: float
    nodule_importance: NDArray[np.float32]
    malignancy_importance: NDArray[np.float32]
    crop: NDArray[np.float32]
    outline: NDArray[np.bool_]
    spec: CropSpec
    center_lps_mm: Point

    @property
    def cell_px(self) -> int:
        """Pixels in-plane over which the importance is the same: the step between blocks."""
        return _block_px(self.spec) // 2

    @property
    def share_within_outline(self) -> float | None:
        """Share of what speaks for a nodule that lies within its outline, 0 to 1; None where nothing does."""
        positive = np.maximum(self.nodule_importance, 0.0)
        total = float(positive.sum())
        return float(positive[self.outline].sum()) / total if total > 0 else None


def explain(
    volume: CtVolume,
    center_lps_mm: Point,
    diameter_mm: float,
    model: LoadedModel,
    on_step: OnStep = lambda _fraction: None,
) -> Explanation:
    """Explain what the characteriser says of a nodule.

    Parameters
    ----------
    volume
        The scan in HU.
    center_lps_mm, diameter_mm
        Of the nodule, as it was reported. The network is asked anew at this centre, which lies near the candidate's
        that it was asked about then.
    model
        Its characteriser and crop spec.
    on_step
        Told the fraction done before each pass; what it raises ends the work.

    Raises
    ------
    ModelError
        When the network cannot be run or answers no numbers.
    """
    spec = model.manifest.second_stage.crop
    crop = sample_crops(volume, [center_lps_mm], spec)[0]
    whole = ask_characteriser(model.judge, crop[None])
    lung = _lung_value(crop, spec)
    blocks = list(_blocks(crop.shape, spec))
    fall = {name: np.zeros(crop.shape, np.float32) for name in _ASKED}
    covers = np.zeros(crop.shape, np.float32)
    for start in range(0, len(blocks), BATCH):
        on_step(start / len(blocks))
        batch = blocks[start : start + BATCH]
        said = ask_characteriser(model.judge, _covered(crop, batch, lung))
        for name in _ASKED:
            falls = _log_odds(whole[name][0]) - _log_odds(said[name])
            for block, by in zip(batch, falls, strict=True):
                fall[name][block] += by
        for block in batch:
            covers[block] += 1
    return Explanation(
        nodule_probability=float(whole["nodule_probability"][0]),
        malignancy_probability=float(whole["malignancy_probability"][0]),
        nodule_importance=np.asarray(fall["nodule_probability"] / covers, np.float32),
        malignancy_importance=np.asarray(fall["malignancy_probability"] / covers, np.float32),
        crop=crop,
        outline=_outline_on(crop, volume, center_lps_mm, diameter_mm, model),
        spec=spec,
        center_lps_mm=center_lps_mm,
    )


def cells(importance: NDArray[np.float32], cell_px: int) -> NDArray[np.float32]:
    """(slices, rows / cell_px, columns / cell_px): the mean of each cell; a remainder at the far edges is left out."""
    depth, rows, columns = (importance.shape[0], *(n // cell_px for n in importance.shape[1:]))
    whole = importance[:, : rows * cell_px, : columns * cell_px]
    return np.asarray(whole.reshape(depth, rows, cell_px, columns, cell_px).mean(axis=(2, 4)))


def _block_px(spec: CropSpec) -> int:
    """Even, so that half of it is a step."""
    return max(2, 2 * round(BLOCK_MM / spec.spacing_mm / 2))


def _blocks(shape: tuple[int, ...], spec: CropSpec) -> Iterator[Block]:
    """Blocks that cover the crop, each voxel several times: cubes of `BLOCK_MM`, in steps of half.

    A crop that is no deeper than that is covered through all of its slices at once.
    """
    offsets = spec.slice_offsets_mm
    slice_mm = (max(offsets) - min(offsets)) / max(len(offsets) - 1, 1)
    depth = min(shape[0], max(1, round(BLOCK_MM / slice_mm))) if slice_mm > 0 else shape[0]
    width = min(_block_px(spec), spec.size_px)
    starts = [_starts(n, size) for n, size in zip(shape, (depth, width, width), strict=True)]
    for z, y, x in product(*starts):
        yield slice(z, z + depth), slice(y, y + width), slice(x, x + width)


def _starts(length: int, size: int) -> list[int]:
    last = max(length - size, 0)
    return sorted({*range(0, last, max(1, size // 2)), last})


def _covered(crop: NDArray[np.float32], blocks: list[Block], lung: float) -> NDArray[np.float32]:
    """(n, slices, rows, columns): the crop with one block covered in each."""
    crops = np.repeat(crop[None], len(blocks), axis=0)
    for covered, block in zip(crops, blocks, strict=True):
        covered[block] = lung
    return crops


def _lung_value(crop: NDArray[np.float32], spec: CropSpec) -> float:
    """Median of the lung in the crop, in network units: what would be seen if nothing were there."""
    low, high = spec.window_hu
    edge = (_LUNG_BELOW_HU - low) / (high - low)
    lung = crop[(crop > 0) & (crop < edge)]
    return float(np.median(lung)) if lung.size else (_USUAL_LUNG_HU - low) / (high - low)


def _log_odds(probability: NDArray[np.floating] | np.floating) -> NDArray[np.float64]:
    p = np.clip(np.asarray(probability, np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p / (1 - p)))


def _outline_on(
    crop: NDArray[np.float32], volume: CtVolume, center_lps_mm: Point, diameter_mm: float, model: LoadedModel
) -> NDArray[np.bool_]:
    """The nodule's outline on the slices of the crop: the nearest slice of the whole outline for each."""
    spec = model.manifest.second_stage.crop
    candidate = Candidate(center_lps_mm, diameter_mm, 1.0)
    mask, _ = outline(
        volume,
        candidate,
        spec,
        lambda stack: ask_characteriser(model.characteriser, stack[None])["mask_probability"][0],
    )
    step_mm = float(mask.grid.spacing_zyx_mm[0])
    at = mask.grid.to_index(center_lps_mm)[0] + np.asarray(spec.slice_offsets_mm) / step_mm
    nearest = np.floor(at + 0.5).astype(int)
    shown = (nearest >= 0) & (nearest < len(mask.voxels))
    on_crop = np.zeros(crop.shape, bool)
    on_crop[shown] = mask.voxels[nearest[shown]]
    return on_crop
