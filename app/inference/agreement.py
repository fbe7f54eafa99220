"""How the answers of two models to the same scan differ: counts and differences, nothing of the scan itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.findings import Findings, Nodule


@dataclass(frozen=True)
class Agreement:
    """Nodules of two answers, matched by place.

    Parameters
    ----------
    both, first_only, second_only
        Numbers of nodules.
    probability_differences
        |p1 - p2| of the matched ones.
    """

    both: int
    first_only: int
    second_only: int
    probability_differences: tuple[float, ...]


def agreement(first: Findings, second: Findings) -> Agreement:
    """Match the nodules of two answers: nearest pairs first, each within the larger of the two radii."""
    pairs = sorted(_close_pairs(first.nodules, second.nodules))
    taken: tuple[set[int], set[int]] = (set(), set())
    differences = []
    for _, one, other in pairs:
        if one not in taken[0] and other not in taken[1]:
            taken[0].add(one)
            taken[1].add(other)
            differences.append(abs(first.nodules[one].probability - second.nodules[other].probability))
    both = len(differences)
    return Agreement(both, len(first.nodules) - both, len(second.nodules) - both, tuple(differences))


def _close_pairs(first: Sequence[Nodule], second: Sequence[Nodule]) -> list[tuple[float, int, int]]:
    found = []
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            distance = math.dist(one.center_lps_mm, other.center_lps_mm)
            if distance <= max(one.diameter_mm, other.diameter_mm) / 2:
                found.append((distance, i, j))
    return found
