"""Stage 1: where something may be. One pass over the lungs when it fits, tiles with a halo otherwise."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.imaging.volume import PreparedVolume
from app.inference.boxes import Boxes, centers, non_maximum_suppression
from app.inference.detector_kinds import DetectorEntry, HeatMapEntry, RetinaNetEntry, WindowRule
from app.inference.findings import Candidate
from app.inference.heat_maps import decode_heat_maps
from app.inference.model_store import LoadedModel
from app.inference.network import Network
from app.inference.retinanet import decode_heads
from app.inference.tiling import Tile, TilingSpec, tiles
from app.inference.windows import maps_of_volume, shrunk

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
        Largest array given to the network at once; larger lungs are cut into tiles, with the same result. The windows
        of ``retinanet-heads`` are made smaller, and that is not the same (see `window_notices`).

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
    if isinstance(entry, RetinaNetEntry):
        boxes, scores = _boxes_of_windows(prepared, model, entry, max_voxels, on_progress)
    else:
        cut = _cut(prepared, model, entry.halo_voxels, max_voxels)
        boxes, scores = _boxes_of_all_tiles(prepared, model.detector, entry, cut, on_progress)
    inside = _in_lungs(boxes, prepared, within_lungs=entry.within_lungs)
    boxes, scores = boxes[inside], scores[inside]
    kept = non_maximum_suppression(boxes, scores, entry.nms_iou)[: entry.max_candidates]
    on_progress(1.0, f"{len(kept)} candidates")
    return [_candidate(box, score, prepared) for box, score in zip(boxes[kept], scores[kept], strict=True)]


def max_voxels_within(model: LoadedModel, memory_mib: float | None) -> int:
    """Largest array for the detector, by the memory that its pass may take; without a bound `DEFAULT_MAX_VOXELS`.

    By what was measured of the variant that runs; a GPU's memory is not what was measured, but near it. A detector
    with windows of its own is given them whole unless a bound is set.
    """
    if memory_mib is not None:
        return int(memory_mib * MIB / (model.detector_bytes_per_voxel or DEFAULT_BYTES_PER_VOXEL))
    entry = model.manifest.detector
    return max(DEFAULT_MAX_VOXELS, prod(entry.window.shape_zyx) if isinstance(entry, RetinaNetEntry) else 0)


def window_notices(model: LoadedModel, max_voxels: int) -> tuple[Notice, ...]:
    """What to tell of a detector whose windows the memory bound makes smaller: its answers change with them."""
    entry = model.manifest.detector
    if not isinstance(entry, RetinaNetEntry) or prod(entry.window.shape_zyx) <= max_voxels:
        return ()
    wanted, used = entry.window.shape_zyx, _window(entry, max_voxels).shape_zyx
    message = (
        f"The detector was made for windows of {wanted} voxels (z, y, x) and ran in windows of {used}, for the memory "
        "it may take; scores and boxes differ from those of whole windows."
    )
    return (Notice("smaller_windows", message, {"window_zyx": list(used), "made_for_zyx": list(wanted)}),)


def _cut(prepared: PreparedVolume, model: LoadedModel, halo: int, max_voxels: int) -> list[Tile]:
    multiple = model.manifest.preprocessing.shape_multiple
    try:
        return tiles(prepared.grid.shape_zyx, TilingSpec(max_voxels, halo, multiple))
    except ValueError as error:
        values = {"max_voxels": max_voxels, "halo_voxels": halo, "shape_zyx": list(prepared.grid.shape_zyx)}
        raise _too_small(error, values) from error


def _window(entry: RetinaNetEntry, max_voxels: int) -> WindowRule:
    try:
        return shrunk(entry.window, entry.multiple_zyx, max_voxels)
    except ValueError as error:
        raise _too_small(error, {"max_voxels": max_voxels, "multiple_zyx": list(entry.multiple_zyx)}) from error


def _too_small(error: ValueError, values: dict[str, object]) -> ModelError:
    return ModelError(
        f"The detector cannot be run in tiles: {error}. Allow it more memory (LUNGNODULE_DETECTOR_MEMORY_MIB).",
        code="tile_too_small",
        values=values,
    )


def _boxes_of_windows(
    prepared: PreparedVolume,
    model: LoadedModel,
    entry: RetinaNetEntry,
    max_voxels: int,
    on_progress: Callable[[float, str], None],
) -> tuple[Boxes, NDArray[np.float64]]:
    """(n, 6) boxes in index coordinates of the whole volume and (n,) scores, from maps blended before decoding."""
    maps, _ = maps_of_volume(
        prepared.values,
        lambda cut: model.detector({"volume": cut}),
        _window(entry, max_voxels),
        entry.multiple_zyx,
        lambda done, every: on_progress(done / every, f"window {done + 1} of {every}"),
    )
    boxes, scores = decode_heads(maps, entry, prepared.values.shape)
    _refuse_nonsense(boxes, scores, entry.score_threshold)
    return boxes, scores


def _boxes_of_all_tiles(
    prepared: PreparedVolume,
    detector: Network,
    entry: DetectorEntry | HeatMapEntry,
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
    values: NDArray[np.float32], detector: Network, entry: DetectorEntry | HeatMapEntry, tile: Tile
) -> tuple[Boxes, NDArray[np.float64], int]:
    """Boxes and scores of the core, and how many boxes a pass gives at most."""
    outputs = detector({"volume": np.ascontiguousarray(values[tile.slices])[None, None]})
    if isinstance(entry, HeatMapEntry):
        boxes, scores = decode_heat_maps(outputs, entry)
        most = entry.top
    else:
        boxes, scores = outputs["boxes"][0].astype(np.float64), outputs["scores"][0].astype(np.float64)
        most = len(scores)
    boxes = boxes + np.tile(tile.start, 2)
    _refuse_nonsense(boxes, scores, entry.score_threshold)
    kept = (scores >= entry.score_threshold) & tile.owns(centers(boxes))
    return boxes[kept], scores[kept], most


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


def _in_lungs(boxes: Boxes, prepared: PreparedVolume, *, within_lungs: bool) -> NDArray[np.bool_]:
    """(n, 6) -> (n,) whether the centre lies in the array and, where a mask is at hand, in the widened lungs."""
    middle = centers(boxes)
    inside = prepared.grid.contains_index(middle)
    if prepared.in_lungs is None or not within_lungs:
        return inside
    nearest = np.clip(np.rint(middle).astype(np.intp), 0, np.asarray(prepared.grid.shape_zyx) - 1)
    return np.asarray(inside & prepared.in_lungs[tuple(nearest.T)])


def _candidate(box: NDArray[np.float64], score: float, prepared: PreparedVolume) -> Candidate:
    x, y, z = (float(v) for v in prepared.grid.to_patient((box[:3] + box[3:]) / 2))
    diameter = float(np.mean((box[3:] - box[:3]) * prepared.grid.spacing_zyx_mm))
    (x0, y0, z0), (x1, y1, z1) = prepared.grid.to_patient(box.reshape(2, 3)).tolist()
    return Candidate((x, y, z), diameter, float(score), box_corners_lps_mm=((x0, y0, z0), (x1, y1, z1)))
