"""Nodules as CSV, a line each."""

from __future__ import annotations

import csv
import io

from app.inference.findings import DISCLAIMER, Location, Nodule
from app.reporting.judgement import category_of, change_of
from app.reporting.material import Report
from app.reporting.wording import images

COLUMNS = (
    "id", "probability", "malignancy_probability", "label", "diameter_mm", "volume_mm3",
    "center_lps_x_mm", "center_lps_y_mm", "center_lps_z_mm", "side",
    "lobe", "kind", "long_axis_mm", "short_axis_mm", "mean_hu", "images",
    "is_spiculated", "long_axis_3d_mm", "volume_low_mm3", "volume_high_mm3", "solid_diameter_mm", "min_hu", "max_hu",
    "mass_mg", "signs", "lobe_confidence", "distance_to_pleura_mm", "distance_to_hilum_mm", "is_juxtapleural",
    "model", "disclaimer",
    "lung_rads", "fleischner", "bts", "brock_2a", "brock_2b", "prior_status", "volume_change_percent",
    "doubling_time_days",
)  # fmt: skip


def table(report: Report) -> str:
    """Comma-separated, CRLF, with a heading; empty where something is not known. Columns are only added at the end."""
    findings = report.findings
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for nodule in findings.nodules:
        made_by = f"{findings.model.name}:{findings.model.version}"
        writer.writerow([*_line(nodule), made_by, DISCLAIMER, *_judged(report, nodule)])
    return out.getvalue()


def _line(nodule: Nodule) -> tuple[object, ...]:
    return (
        nodule.id,
        round(nodule.probability, 4),
        _figure(nodule.malignancy_probability, 4),
        nodule.label or "",
        round(nodule.diameter_mm, 2),
        _figure(nodule.volume_mm3, 1),
        *(round(value, 2) for value in nodule.center_lps_mm),
        nodule.side or "",
        (nodule.location.lobe if nodule.location else None) or "",
        nodule.kind or "",
        round(nodule.long_axis_mm, 2),
        round(nodule.short_axis_mm, 2),
        _figure(nodule.mean_hu, 1),
        images(nodule),
        *_measurements(nodule),
    )


def _measurements(nodule: Nodule) -> tuple[object, ...]:
    """What was not measured is left empty."""
    place, (low, high) = nodule.location or Location(), nodule.volume_interval_mm3 or (None, None)
    return (
        _yes_or_no(nodule.is_spiculated),
        _figure(nodule.long_axis_3d_mm, 2),
        _figure(low, 1),
        _figure(high, 1),
        _figure(nodule.solid_diameter_mm, 2),
        *(_figure(value, 1) for value in (nodule.min_hu, nodule.max_hu, nodule.mass_mg)),
        " ".join(nodule.signs),
        _figure(place.lobe_confidence, 2),
        _figure(place.distance_to_pleura_mm, 1),
        _figure(place.distance_to_hilum_mm, 1),
        _yes_or_no(place.is_juxtapleural),
    )


def _judged(report: Report, nodule: Nodule) -> tuple[object, ...]:
    """Categories that were assigned, probabilities that could be computed, and the change since the prior."""
    assessed = report.assessed(nodule)
    brock = {risk.model: risk.probability for risk in assessed.brock} if assessed else {}
    change = change_of(report.comparison, nodule.id)
    growth = change.growth if change else None
    return (
        *(category_of(assessed, name) or "" for name in ("lung_rads_v2022", "fleischner_2017", "bts_2015")),
        *(_figure(brock.get(name), 4) for name in ("brock_full_2a", "brock_full_2b")),
        change.status if change else "",
        _figure(growth.volume_change_percent if growth else None, 1),
        _figure(growth.doubling_time_days if growth else None, 0),
    )


def _figure(value: float | None, digits: int) -> float | str:
    return "" if value is None else round(value, digits)


def _yes_or_no(value: bool | None) -> str:  # noqa: FBT001 - a value to be written, not a switch
    return "" if value is None else "yes" if value else "no"
