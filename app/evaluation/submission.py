"""LUNA16's submission CSV, and the figures of one as text and for machines."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FP_RATES, FrocResult, Mark
from app.evaluation.node21 import Node21Score
from app.evaluation.reference import Luna16Error

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "probability")


def read_submission(path: Path) -> tuple[Mark, ...]:
    """Marks of a submission: columns seriesuid, coordX, coordY, coordZ, probability in any order, world mm (LPS).

    Raises
    ------
    Luna16Error
        If a column is missing or a value is not a finite number.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise Luna16Error(f"{path.name} has no column {', '.join(absent)}; it has {reader.fieldnames}")
        return tuple(_mark(row, f"{path.name}, line {reader.line_num}") for row in reader)


def write_submission(path: Path, marks: Iterable[Mark]) -> None:
    """LUNA16's format: one mark to a line, world coordinates in mm as the ``.mhd`` has them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows((mark.series_uid, *mark.center_lps_mm, mark.probability) for mark in marks)


def format_table(result: FrocResult, score: Node21Score) -> str:
    """The figures as text, one to a line."""
    marks = sum(scan.n_marks for scan in result.scans)
    lines = [
        f"{len(result.scans)} scans, {result.n_nodules} nodules, {marks} marks",
        f"{result.n_hits} nodules hit, {result.n_false_positives} false positives",
        f"{sum(scan.n_irrelevant for scan in result.scans)} marks on irrelevant findings ignored",
        f"{sum(scan.n_repeated for scan in result.scans)} repeated hits of one nodule ignored",
        "",
        "FP/scan   sensitivity   95 % interval (bootstrap over scans)",
    ]
    for rate in FP_RATES:
        found = result.sensitivities[rate]
        lines.append(f"{rate:7.3f}   {found.value:11.4f}   {found.low:.4f} to {found.high:.4f}")
    lines += [f"    CPM   {result.cpm.value:11.4f}   {result.cpm.low:.4f} to {result.cpm.high:.4f}", ""]
    lines += [f"{name}: {estimate}" for name, estimate in score.by_name().items()]
    lines.append("(NODE21 is scored on 2-D chest X-rays; on CT, with LUNA16's hit, this is an adaptation.)")
    return "\n".join(lines) + "\n"


def figures(result: FrocResult, score: Node21Score) -> dict[str, object]:
    """The same figures for machines; a bound that is not defined is null."""
    named = {f"sensitivity_at_{rate:g}_fp_per_scan": result.sensitivities[rate] for rate in FP_RATES}
    named |= {"cpm": result.cpm} | score.by_name()
    return {
        "n_scans": len(result.scans),
        "n_nodules": result.n_nodules,
        "n_hits": result.n_hits,
        "n_false_positives": result.n_false_positives,
        "estimates": {name: _as_json(estimate) for name, estimate in named.items()},
    }


def _as_json(estimate: Estimate) -> dict[str, float | int | None]:
    bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: bound if math.isfinite(bound) else None for name, bound in bounds.items()} | {"n": estimate.n}


def _mark(row: dict[str, str], place: str) -> Mark:
    try:
        x, y, z, probability = (float(row[name]) for name in COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise Luna16Error(f"{place}: a coordinate or the probability is not a number") from error
    if not all(map(math.isfinite, (x, y, z, probability))):
        raise Luna16Error(f"{place}: a coordinate or the probability is not finite")
    return Mark((row["seriesuid"] or "").strip(), (x, y, z), probability)
