"""Stage 1: where something may be. One pass over the lungs when it fits, tiles with a halo otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.imaging.errors import ModelError
from app.imaging.volume import PreparedVolume
from app.inference.boxes import Boxes, centers, non_maximum_suppression
from app.inference.findings import Candidate
from app.inference.manifest import DetectorEntry
from app.inference.model_store import LoadedModel
from app.inference.network import Network
from app.inference.tiling import Tile, TilingSpec, tiles

DEFAULT_MAX_VOXELS = 40_000_000
"""Largest pass of the detector. An adult's lungs at 1 mm are 10 to 30 million voxels."""
DEFAULT_BYTES_PER_VOXEL = 31.0
"""What a pass takes where the manifest does not say: measured with the detector of lungnodule 0.1.0, fp32, on a CPU."""
MIB = 1 << 20


def detect(
    prepared: PreparedVolume,
    model: LoadedModel,
    on_progress: Callable[[float, str], None] = lambda _fraction, _detail: None,
    *,
    max_voxels: int = DEFAULT_MAX_VOXELS,
) -> list[Candidate]:
    """Find candidates in the prepared lungs.

    Parameters
    ----------
    prepared
        Output of `app.imaging.preprocessing.preprocess` with the model's own spec.
    model
        Its detector, thresholds and halo.
    on_progress
        Told the fraction done and which tile, before each tile and at the end.
    max_voxels
        Largest array given to the network at once; larger lungs are cut into tiles, with the same result.

    Returns
    -------
    list of Candidate
        By falling probability, at most ``max_candidates`` of the manifest, all inside the widened lungs.

    Raises
    ------
    ModelError
        ``preprocessing_mismatch`` when the volume was prepared with another spec; ``tile_too_small`` when
        ``max_voxels`` leaves no room for the halo.
    """
    spec = model.manifest.preprocessing
    if prepared.spec_digest != spec.digest:
        raise ModelError(
            "The volume was prepared with another specification than the model's.",
            code="preprocessing_mismatch",
            values={"expected": spec.digest, "found": prepared.spec_digest},
        )
    entry = model.manifest.detector
    boxes, scores = _boxes_of_all_tiles(prepared, model.detector, entry, _cut(prepared, model, max_voxels), on_progress)
    inside = _in_lungs(boxes, prepared)
    boxes, scores = boxes[inside], scores[inside]
    kept = non_maximum_suppression(boxes, scores, entry.nms_iou)[: entry.max_candidates]
    on_progress(1.0, f"{len(kept)} candidates")
    return [_candidate(box, score, prepared) for box, score in zip(boxes[kept], scores[kept], strict=True)]


def max_voxels_within(model: LoadedModel, memory_mib: float | None) -> int:
    """Largest array for the detector, by the memory that its pass may take; `DEFAULT_MAX_VOXELS` without a bound.

    By what was measured of the variant that runs; a GPU's memory is not what was measured, but near it.
    """
    if memory_mib is None:
        return DEFAULT_MAX_VOXELS
    return int(memory_mib * MIB / (model.detector_bytes_per_voxel or DEFAULT_BYTES_PER_VOXEL))


def _cut(prepared: PreparedVolume, model: LoadedModel, max_voxels: int) -> list[Tile]:
    halo, multiple = model.manifest.detector.halo_voxels, model.manifest.preprocessing.shape_multiple
    try:
        return tiles(prepared.grid.shape_zyx, TilingSpec(max_voxels, halo, multiple))
    except ValueError as error:
        raise ModelError(
            f"The detector cannot be run in tiles: {error}. Allow it more memory (LUNGNODULE_DETECTOR_MEMORY_MIB).",
            code="tile_too_small",
            values={"max_voxels": max_voxels, "halo_voxels": halo, "shape_zyx": list(prepared.grid.shape_zyx)},
        ) from error


def _boxes_of_all_tiles(
    prepared: PreparedVolume,
    detector: Network,
    entry: DetectorEntry,
    cut: list[Tile],
    on_progress: Callable[[float, str], None],
) -> tuple[Boxes, NDArray[np.float64]]:
    """(n, 6) boxes in index coordinates of the whole volume and (n,) scores, in an order that tiling cannot change."""
    found: list[tuple[Boxes, NDArray[np.float64]]] = []
    most = 0
    for number, tile in enumerate(cut):
        on_progress(number / len(cut), f"tile {number + 1} of {len(cut)}")
        boxes, scores, most = _boxes_of_tile(prepared.values, detector, entry, tile)
        found.append((boxes, scores))
    boxes = np.concatenate([boxes for boxes, _ in found])
    scores = np.concatenate([scores for _, scores in found])
    # One pass over the whole would have given no more boxes than a pass over a tile.
    order = np.lexsort((*boxes.T[::-1], -scores))[:most]
    return boxes[order], scores[order]


def _boxes_of_tile(
    values: NDArray[np.float32], detector: Network, entry: DetectorEntry, tile: Tile
) -> tuple[Boxes, NDArray[np.float64], int]:
    """Boxes and scores of the core, and how many boxes a pass gives at most."""
    outputs = detector({"volume": np.ascontiguousarray(values[tile.slices])[None, None]})
    boxes = outputs["boxes"][0].astype(np.float64) + np.tile(tile.start, 2)
    scores = outputs["scores"][0].astype(np.float64)
    _refuse_nonsense(boxes, scores, entry.score_threshold)
    kept = (scores >= entry.score_threshold) & tile.owns(centers(boxes))
    return boxes[kept], scores[kept], len(scores)


def _refuse_nonsense(boxes: Boxes, scores: NDArray[np.float64], threshold: float) -> None:
    """A score that is no number, or a box without extent, must not pass for "nothing found"."""
    counted = ~(scores < threshold)
    sound = np.isfinite(scores) & np.isfinite(boxes).all(axis=1) & (boxes[:, 3:] > boxes[:, :3]).all(axis=1)
    faulty = int(np.count_nonzero(counted & ~sound))
    if faulty:
        raise ModelError(
            f"The detector gave {faulty} boxes or scores that are no numbers or have no extent.",
            code="network_output_invalid",
            values={"network": "detector", "faulty": faulty},
        )


def _in_lungs(boxes: Boxes, prepared: PreparedVolume) -> NDArray[np.bool_]:
    """(n, 6) -> (n,) whether the centre lies in the array and, where a mask is at hand, in the widened lungs."""
    middle = centers(boxes)
    inside = prepared.grid.contains_index(middle)
    if prepared.in_lungs is None:
        return inside
    nearest = np.clip(np.rint(middle).astype(np.intp), 0, np.asarray(prepared.grid.shape_zyx) - 1)
    return np.asarray(inside & prepared.in_lungs[tuple(nearest.T)])


def _candidate(box: NDArray[np.float64], score: float, prepared: PreparedVolume) -> Candidate:
    x, y, z = (float(v) for v in prepared.grid.to_patient((box[:3] + box[3:]) / 2))
    diameter = float(np.mean((box[3:] - box[:3]) * prepared.grid.spacing_zyx_mm))
    return Candidate((x, y, z), diameter, float(score))
