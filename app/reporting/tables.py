"""Nodules as CSV, a line each."""

from __future__ import annotations

import csv
import io

from app.inference.findings import DISCLAIMER, Findings, Nodule
from app.reporting.wording import images

COLUMNS = (
    "id", "probability", "malignancy_probability", "label", "diameter_mm", "volume_mm3",
    "center_lps_x_mm", "center_lps_y_mm", "center_lps_z_mm", "side",
    "lobe", "kind", "long_axis_mm", "short_axis_mm", "mean_hu", "images", "model", "disclaimer",
)  # fmt: skip


def table(findings: Findings) -> str:
    """Comma-separated, CRLF, with a heading; empty where something is not known. Columns are only added at the end."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for nodule in findings.nodules:
        writer.writerow([*_line(nodule), f"{findings.model.name}:{findings.model.version}", DISCLAIMER])
    return out.getvalue()


def _line(nodule: Nodule) -> tuple[object, ...]:
    return (
        nodule.id,
        round(nodule.probability, 4),
        round(nodule.malignancy_probability, 4),
        nodule.label,
        round(nodule.diameter_mm, 2),
        round(nodule.volume_mm3, 1),
        *(round(value, 2) for value in nodule.center_lps_mm),
        nodule.side or "",
        (nodule.location.lobe if nodule.location else None) or "",
        nodule.kind or "",
        round(nodule.long_axis_mm, 2),
        round(nodule.short_axis_mm, 2),
        "" if nodule.mean_hu is None else round(nodule.mean_hu, 1),
        images(nodule),
    )
