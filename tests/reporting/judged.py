"""Findings with all that can be measured, and a prior that one nodule had half of its volume in."""

from __future__ import annotations

import dataclasses

from app.imaging.alignment import AlignmentQuality
from app.inference.findings import Location
from app.reporting.compared import ComparedFindings, Comparison, LoneNodule, NodulePair
from app.reporting.size_change import PriorStatus, Size, size_change
from tests.reporting.worlds import Scan

DAYS = 180


def judged(scan: Scan) -> Scan:
    """The first nodule doubled in `DAYS`, the others are new, one is gone."""
    first, *others = [
        dataclasses.replace(
            nodule, kind="part_solid", is_spiculated=True, solid_diameter_mm=5.25, min_hu=-310.5, max_hu=88.0,
            volume_interval_mm3=(0.8 * nodule.volume_mm3, 1.25 * nodule.volume_mm3), mass_mg=123.4,
            signs=("calcification",), location=Location("upper", 0.8, 3.25, 40.0, False),
        )
        for nodule in scan.findings.nodules
    ]  # fmt: skip
    before = dataclasses.replace(first, id="nodule-1", volume_mm3=first.volume_mm3 / 2, diameter_mm=11.0)
    growth = size_change(Size(before.volume_mm3, 11.0), Size(first.volume_mm3, first.diameter_mm), DAYS)
    comparison = Comparison(
        days=DAYS, quality=AlignmentQuality(0.9, 1.0, 50, 0.9, 0.8, 1.5), failure=None,
        prior_nodules=(before, dataclasses.replace(before, id="nodule-2")),
        pairs=(NodulePair(first.id, "nodule-1", 1.0, 8.0, growth),),
        only_current=tuple(LoneNodule(nodule.id, "new", (0.0, 1.0, 2.0)) for nodule in others),
        only_prior=(LoneNodule("nodule-2", "resolved", None),),
        statuses=(
            PriorStatus(first.id, "growing", DAYS, 3.0, 6.1, 11.0),
            *(PriorStatus(nodule.id, "new", DAYS, None, None, None) for nodule in others),
        ),
        notices=(), missing=(),
    )  # fmt: skip
    own = {field.name: getattr(scan.findings, field.name) for field in dataclasses.fields(scan.findings)}
    found = ComparedFindings(**{**own, "nodules": (first, *others)}, comparison=comparison)
    return Scan(scan.folder, found)
