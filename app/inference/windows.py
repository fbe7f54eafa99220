"""Maps of a whole volume from overlapping windows of it, averaged where windows overlap.

The rule is that of MONAI's sliding-window inference with constant weights, whose effect a network's maps show (its
normalisation sees a whole window), so that a network trained and validated with it answers here as it does there:

- A volume of fewer voxels than a window is one pass, whatever its shape.
- Else it is padded with air to at least a window on every axis, half before and half behind.
- Windows start every ``int((1 - overlap) * length)`` voxels, and the last one ends with the volume.
- A map with fewer cells than the window has voxels is placed at its share of the window's start, rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.detector_kinds import WindowRule

Shape = tuple[int, ...]
Maps = dict[str, NDArray[np.float32]]
Run = Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]


def maps_of_volume(
    values: NDArray[np.float32],
    run: Run,
    rule: WindowRule,
    multiple_zyx: tuple[int, int, int],
    on_window: Callable[[int, int], None] = lambda _done, _all: None,
) -> tuple[Maps, Shape]:
    """Run a network over a volume and give back its maps, and the shape that they are maps of.

    Parameters
    ----------
    values
        (z, y, x) network units.
    run
        The network: (1, 1, z, y, x) to maps (1, c, d, h, w) by name.
    rule
        Window and overlap.
    multiple_zyx
        What the network's input must be a multiple of; the volume is padded with air behind.
    on_window
        Told, before each window, how many are done and how many there are.
    """
    padded = _padded_behind(values, multiple_zyx)
    if math.prod(values.shape) < math.prod(rule.shape_zyx):
        on_window(0, 1)
        said = run(padded[None, None])
        return {name: np.asarray(map_, dtype=np.float32) for name, map_ in said.items()}, padded.shape
    return _blended(padded, run, rule, on_window), padded.shape


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows start along an axis that is no shorter than one."""
    step = window if length == window else max(int(window * (1 - overlap)), 1)
    count = math.ceil((length - window) / step) + 1
    return [min(n * step, length - window) for n in range(count)]


def shrunk(rule: WindowRule, multiple_zyx: tuple[int, int, int], max_voxels: int) -> WindowRule:
    """A window of the same proportions, as far as the multiples allow, of at most ``max_voxels``.

    Raises
    ------
    ValueError
        If the smallest window has more.
    """
    shape = np.array(rule.shape_zyx)
    multiple = np.array(multiple_zyx)
    while math.prod(shape.tolist()) > max_voxels:
        room = shape > multiple
        if not room.any():
            raise ValueError(f"max_voxels {max_voxels} is below the smallest window, {math.prod(multiple_zyx)} voxels")
        # The axis that is longest beside the window asked for gives way first.
        share = np.where(room, (shape - multiple / 2) / np.array(rule.shape_zyx), -1.0)
        axis = int(np.argmax(share))
        shape[axis] -= multiple[axis]
    return rule.model_copy(update={"shape_zyx": tuple(int(n) for n in shape)})


def _padded_behind(values: NDArray[np.float32], multiple_zyx: tuple[int, int, int]) -> NDArray[np.float32]:
    missing = [(0, -n % m) for n, m in zip(values.shape, multiple_zyx, strict=True)]
    return np.pad(values, missing) if any(after for _, after in missing) else values


def _blended(padded: NDArray[np.float32], run: Run, rule: WindowRule, on_window: Callable[[int, int], None]) -> Maps:
    window = rule.shape_zyx
    before = [max(w - n, 0) // 2 for n, w in zip(padded.shape, window, strict=True)]
    behind = [max(w - n, 0) - b for n, w, b in zip(padded.shape, window, before, strict=True)]
    volume = np.pad(padded, list(zip(before, behind, strict=True))) if any(behind) else padded
    places = list(_places(volume.shape, window, rule.overlap))
    sums: Maps = {}
    counts: Maps = {}
    for number, start in enumerate(places):
        on_window(number, len(places))
        cut = volume[tuple(slice(s, s + w) for s, w in zip(start, window, strict=True))]
        for name, map_ in run(np.ascontiguousarray(cut)[None, None]).items():
            _add(map_, start, window, volume.shape, name, sums, counts)
    return {name: _cropped(sums[name] / counts[name], before, padded.shape, volume.shape) for name in sums}


def _places(shape: Shape, window: Shape, overlap: float) -> Iterator[Shape]:
    return product(*(window_starts(n, w, overlap) for n, w in zip(shape, window, strict=True)))


def _add(map_: NDArray[Any], start: Shape, window: Shape, shape: Shape, name: str, sums: Maps, counts: Maps) -> None:
    """Add the map of one window to the map of the whole."""
    share = [cells / voxels for cells, voxels in zip(map_.shape[2:], window, strict=True)]
    if name not in sums:
        cells = tuple(int(n * s) for n, s in zip(shape, share, strict=True))
        sums[name] = np.zeros((*map_.shape[:2], *cells), np.float32)
        counts[name] = np.zeros((1, 1, *cells), np.float32)
    place = (
        slice(None),
        slice(None),
        *(slice(int(a * s), int((a + w) * s)) for a, w, s in zip(start, window, share, strict=True)),
    )
    sums[name][place] += map_
    counts[name][place] += 1


def _cropped(map_: NDArray[np.float32], before: list[int], wanted: Shape, shape: Shape) -> NDArray[np.float32]:
    """Without the cells of the padding."""
    share = [cells / voxels for cells, voxels in zip(map_.shape[2:], shape, strict=True)]
    kept = tuple(slice(round(b * s), round((b + n) * s)) for b, n, s in zip(before, wanted, share, strict=True))
    return map_[(slice(None), slice(None), *kept)]
