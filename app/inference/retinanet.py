"""Boxes from the heads of an anchor-based network: anchors, decoding and selection, as its manifest describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.errors import ModelError
from app.inference.boxes import Boxes
from app.inference.detector_kinds import AnchorLevel, RetinaNetEntry

Shape = tuple[int, ...]


def decode_heads(
    maps: Mapping[str, NDArray[Any]], entry: RetinaNetEntry, shape_zyx: Shape
) -> tuple[Boxes, NDArray[np.float64]]:
    """The likeliest boxes of every level, clipped to the volume.

    Parameters
    ----------
    maps
        ``logits_n`` (1, a, d, h, w) and ``deltas_n`` (1, 6 a, d, h, w) for every level n.
    entry
        Anchors, weights and limits.
    shape_zyx
        The volume without its padding; boxes end there.

    Returns
    -------
    boxes, scores
        (n, 6) in index coordinates of the volume and (n,) probabilities above the threshold.
    """
    found = [_level(maps, entry, number, shape_zyx) for number in range(len(entry.levels))]
    return np.concatenate([boxes for boxes, _ in found]), np.concatenate([scores for _, scores in found])


def _level(
    maps: Mapping[str, NDArray[Any]], entry: RetinaNetEntry, number: int, shape_zyx: Shape
) -> tuple[Boxes, NDArray[np.float64]]:
    logits, deltas = maps[f"logits_{number}"][0], maps[f"deltas_{number}"][0]
    level = entry.levels[number]
    _refuse_other_shapes(logits, deltas, level, number)
    # Cells first, anchors last: the order in which equal scores come.
    flat = np.moveaxis(logits, 0, -1).ravel().astype(np.float32)
    scores = 0.5 * (1 + np.tanh(flat.astype(np.float64) / 2))
    likely = np.flatnonzero(~(scores <= entry.score_threshold))
    best = likely[np.argsort(-scores[likely], kind="stable")][: entry.top_per_level]
    cells, anchors = np.divmod(best, len(level.sizes_zyx))
    index = np.stack(np.unravel_index(cells, logits.shape[1:]), axis=1)
    delta = deltas.reshape(len(level.sizes_zyx), 6, -1)[anchors, :, cells].astype(np.float64)
    boxes = _decoded(index, np.asarray(level.sizes_zyx)[anchors], delta / entry.delta_weights_zyx, level, entry)
    return _clipped(boxes, scores[best], shape_zyx, entry.minimum_side_voxels)


def _decoded(
    index: NDArray[np.intp],
    size: NDArray[np.float64],
    delta: NDArray[np.float64],
    level: AnchorLevel,
    entry: RetinaNetEntry,
) -> Boxes:
    center = index * np.asarray(level.stride_zyx) + np.asarray(level.first_cell_zyx) + delta[:, :3] * size
    half = size * np.exp(np.minimum(delta[:, 3:], entry.max_log_size)) / 2
    return np.concatenate([center - half, center + half], axis=1)


def _clipped(
    boxes: Boxes, scores: NDArray[np.float64], shape_zyx: Shape, minimum_side_voxels: float
) -> tuple[Boxes, NDArray[np.float64]]:
    """Boxes that end with the volume. What is no number stays, to be refused by whoever counts the boxes."""
    clipped = np.clip(boxes, 0.0, np.tile(shape_zyx, 2))
    kept = ~(clipped[:, 3:] - clipped[:, :3] < minimum_side_voxels).any(axis=1)
    return clipped[kept], scores[kept]


def _refuse_other_shapes(logits: NDArray[Any], deltas: NDArray[Any], level: AnchorLevel, number: int) -> None:
    count = len(level.sizes_zyx)
    if logits.shape[0] != count or deltas.shape != (6 * count, *logits.shape[1:]):
        raise ModelError(
            f"Level {number} of the manifest has {count} anchors a cell; the network gives logits {logits.shape} and "
            f"deltas {deltas.shape}, where ({count}, d, h, w) and ({6 * count}, d, h, w) are promised.",
            code="network_contract",
            values={"level": number, "logits": list(logits.shape), "deltas": list(deltas.shape)},
        )
