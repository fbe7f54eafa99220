"""Which nodule of one scan is which of another: an assignment with a gate in millimetres and a limit on sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from app.imaging.volume import FloatArray
from app.inference.findings import Point

GATE_MM = 3.0
"""What centres of mass of one nodule differ by without any error of registration."""
GATE_PER_ERROR = 2.0
"""The registration's error is what 90 % of landmarks stay within; twice that nearly all do."""
GATE_PER_DIAMETER = 0.25
"""Growth to one side moves the centre by up to half of what the diameter grows."""
LARGEST_GATE_MM = 20.0
LARGEST_VOLUME_RATIO = 64.0
"""Fourfold in diameter, either way; more is taken for two things."""
_UNMATCHED = 0.5
"""Cost of leaving a nodule alone: two of them cost as much as a pair at the edge of the gate."""
_FORBIDDEN = 1e6


@dataclass(frozen=True)
class Placed:
    """A nodule in the frame in which both scans' nodules are compared."""

    center_lps_mm: Point
    diameter_mm: float
    volume_mm3: float
    error_mm: float = 0.0
    """Of its place in that frame."""


@dataclass(frozen=True)
class Match:
    """Indices into the two lists, how far apart the two were and how far they might have been."""

    current: int
    prior: int
    distance_mm: float
    gate_mm: float


def match_nodules(current: Sequence[Placed], prior: Sequence[Placed]) -> list[Match]:
    """Pair nodules so that the sum of costs is least; pairs beyond the gate or the limit of sizes are not made.

    Parameters
    ----------
    current, prior
        In one frame. The error of a pair is that of the current nodule.

    Returns
    -------
    list of Match
        In the order of ``current``. The cost of a pair is its distance over its gate, squared, plus a share for
        unlike sizes; it is made only where that is less than leaving both alone.
    """
    if not current or not prior:
        return []
    distance = np.linalg.norm(_centers(current)[:, None] - _centers(prior)[None], axis=-1)
    gate = np.array([[gate_mm(a, b) for b in prior] for a in current])
    volumes = [np.array([nodule.volume_mm3 for nodule in some]) for some in (current, prior)]
    unlike = np.abs(np.log(volumes[0][:, None] / volumes[1][None])) / np.log(LARGEST_VOLUME_RATIO)
    cost = (distance / gate) ** 2 + 0.5 * unlike**2
    cost[unlike > 1.0] = _FORBIDDEN  # beyond the gate a pair costs more than two that stay alone, and is not made
    rows, columns = len(current), len(prior)
    # Everyone may stay alone: a partner of one's own that nobody else can have.
    table = np.full((rows + columns, rows + columns), _FORBIDDEN)
    table[:rows, :columns] = cost
    table[:rows, columns:][np.diag_indices(rows)] = _UNMATCHED
    table[rows:, :columns][np.diag_indices(columns)] = _UNMATCHED
    table[rows:, columns:] = 0.0
    found = zip(*linear_sum_assignment(table), strict=True)
    return [
        Match(int(i), int(j), float(distance[i, j]), float(gate[i, j])) for i, j in found if i < rows and j < columns
    ]


def gate_mm(current: Placed, prior: Placed) -> float:
    """How far apart two sightings of one nodule may be."""
    widest = max(current.diameter_mm, prior.diameter_mm)
    return min(LARGEST_GATE_MM, GATE_MM + GATE_PER_ERROR * current.error_mm + GATE_PER_DIAMETER * widest)


def _centers(nodules: Sequence[Placed]) -> FloatArray:
    return np.array([nodule.center_lps_mm for nodule in nodules], dtype=np.float64)
