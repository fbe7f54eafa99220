"""Figures that are computed from measured ones, each by a rule that fits in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tests.benchmarks.measuring import summary


@dataclass(frozen=True)
class Line:
    """Least squares through a few points."""

    intercept: float
    slope: float
    r_squared: float


@dataclass(frozen=True)
class MonaiScan:
    """What MONAI's network would take for the whole scan."""

    measured: tuple[str, ...]
    window_s: float
    window_mib: float
    scan_s: float
    time_ratio: float
    memory_ratio: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """Intercept, slope and the share of variance explained; exact through two points."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (intercept + slope * np.asarray(x))
    total = float(np.var(y))
    return Line(float(intercept), float(slope), 1.0 - float(np.mean(rest**2)) / total if total else 1.0)


def fitted(part: dict[str, Any], what: str) -> Line:
    """``total`` seconds (median) or ``peak`` MiB (most) of the runs without a cap, against lung volume in ml."""
    volumes, values = [], []
    for label, facts in part["facts"].items():
        runs = part["runs"][label]
        volumes.append(float(facts["lung_ml"]))
        if what == "peak":
            values.append(max(run["peak_mib"] for run in runs))
        else:
            values.append(summary([run["seconds"][what] for run in runs]).median)
    return line(volumes, values)


def monai_scan(part: dict[str, Any]) -> MonaiScan:
    """Seconds by voxels from the largest window measured; memory on the line through all that were."""
    labels = ["x".join(map(str, window)) for window in part["windows_xyz"]]
    voxels = [prod(window) for window in part["windows_xyz"]]
    times = [summary([run["seconds"]["window"] for run in part["runs"][label]]).median for label in labels]
    peaks = [max(run["run_mib"] for run in part["runs"][label]) for label in labels]
    own = prod(part["own_window_xyz"])
    window_s = times[-1] * own / voxels[-1]
    memory = line(voxels, peaks)
    window_mib = memory.intercept + memory.slope * own
    ours = part["runs"]["ours"]
    ours_s = summary([run["seconds"]["total"] for run in ours]).median
    ours_mib = max(run["peak_mib"] + run["children_mib"] for run in ours)
    scan_s = window_s * part["windows_a_scan"]
    return MonaiScan(tuple(labels), window_s, window_mib, scan_s, scan_s / ours_s, window_mib / ours_mib)
