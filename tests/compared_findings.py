"""Findings of a scan whose nodules are known, as a model that finds them all would give them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from app.imaging.alignment import Chest
from app.imaging.visit import Visit
from app.imaging.volume import CtVolume
from app.inference.findings import Candidate, Findings, Nodule, Trace
from tests.api.standins import make_findings, make_nodule
from tests.phantom_pairs import PhantomPair

FIRST_DAY = date(2024, 3, 1)
Ball = tuple[Sequence[float], float]
"""Centre in patient LPS mm and diameter in mm."""


def nodule_of(number: int, ball: Ball, relative_volume: float = 1.0) -> Nodule:
    (x, y, z), diameter_mm = ball
    volume = math.pi / 6 * diameter_mm**3 * relative_volume
    diameter_mm *= relative_volume ** (1 / 3)
    return replace(
        make_nodule(number, 0.9), center_lps_mm=(float(x), float(y), float(z)), diameter_mm=diameter_mm,
        volume_mm3=volume, volume_interval_mm3=None,
    )  # fmt: skip


def findings_of(
    volume: CtVolume,
    chest: Chest,
    nodules: Sequence[Nodule],
    *,
    day: int | None = 0,
    patient: str | None = "one",
    faint: Sequence[Candidate] = (),
    **changes: Any,
) -> Findings:
    visit = Visit(patient, None if day is None else FIRST_DAY + timedelta(days=day))
    trace = Trace(chest, visit, tuple(faint), 0.1)
    return make_findings(*nodules, grid=volume.grid, identity=None, trace=trace, **changes)


def both_findings(
    pair: PhantomPair,
    chests: tuple[Chest, Chest],
    days: int,
    *,
    jitter_mm: float = 0.0,
    log_error: float = 0.0,
    rng: np.random.Generator | None = None,
) -> tuple[Findings, Findings]:
    """Current and prior; ids tell which is which: number n of the pair's nodules is ``nodule-n`` in both."""
    rng = rng or np.random.default_rng(0)
    found = []
    for chest, volume, name in zip(chests, (pair.current, pair.prior), ("current", "prior"), strict=True):
        nodules = []
        for number, nodule in enumerate(pair.nodules):
            diameter = getattr(nodule, f"{name}_mm")
            if diameter is not None:
                center = getattr(nodule, f"{name}_lps_mm") + jitter_mm * rng.normal(size=3)
                # Within the assumed 95 % interval in 95 of 100 cases.
                relative = math.exp(log_error / 1.96 * rng.normal())
                nodules.append(nodule_of(number, (center, diameter), relative))
        found.append(findings_of(volume, chest, nodules, day=days if name == "current" else 0))
    return found[0], found[1]
