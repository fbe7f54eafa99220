"""Boxes from a heat map of centres and a map of sizes: the decoding of detectors that leave it to the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.boxes import Boxes
from app.inference.detector_kinds import HeatMapEntry


def decode_heat_maps(outputs: Mapping[str, NDArray[Any]], entry: HeatMapEntry) -> tuple[Boxes, NDArray[np.float64]]:
    """Boxes around the highest cells of the map.

    Parameters
    ----------
    outputs
        ``heat`` (1, 1, d, h, w), ``size`` (1, 1 or 3, d, h, w), ``offset`` (1, 3, d, h, w) where the network has it.
    entry
        What the maps mean.

    Returns
    -------
    boxes, scores
        (n, 6) in index coordinates of the network's input and (n,) probabilities by falling order, at most
        ``entry.top``; only cells that are the highest of their neighbourhood and reach the threshold.
    """
    from scipy.ndimage import maximum_filter  # noqa: PLC0415 - only this kind needs it

    heat = np.asarray(outputs["heat"][0, 0], dtype=np.float64)
    # Without overflow for any logit; a NaN stays one and is refused by whoever counts the boxes.
    scores = 0.5 * (1 + np.tanh(heat / 2)) if entry.heat == "logit" else heat
    peak = scores >= maximum_filter(np.nan_to_num(scores, nan=-np.inf), entry.peak_cells, mode="nearest")
    cells = np.flatnonzero((peak & (scores >= entry.score_threshold)) | np.isnan(scores))
    cells = cells[np.argsort(-scores.ravel()[cells], kind="stable")][: entry.top]
    index = np.stack(np.unravel_index(cells, heat.shape), axis=1).astype(np.float64)
    stride = np.asarray(entry.stride_zyx, dtype=np.float64)
    first = (stride - 1) / 2 if entry.first_cell_zyx is None else np.asarray(entry.first_cell_zyx)
    center = index * stride + first
    if "offset" in outputs:
        center += _at(outputs["offset"], cells)
    side = _at(outputs["size"], cells)
    half = (np.exp(side) if entry.size == "log-voxels" else side) / 2
    return np.concatenate([center - half, center + half], axis=1), scores.ravel()[cells]


def _at(values: NDArray[Any], cells: NDArray[np.intp]) -> NDArray[np.float64]:
    """(1, c, d, h, w) -> (n, c) at flat cells."""
    return np.asarray(values[0].reshape(values.shape[1], -1)[:, cells].T, dtype=np.float64)
