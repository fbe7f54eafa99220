"""`python -m training evaluate --submission results.csv --annotations annotations.csv`: a LUNA16 submission, scored."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path

from training.froc import FP_RATES, LUNA16_RULES, FrocResult, FrocRules, Mark, froc
from training.luna16 import Luna16Error, published_file, read_reference
from training.metrics import Estimate
from training.node21 import Node21Score, node21_score

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


def evaluate_submission(
    submission_csv: Path,
    annotations_csv: Path,
    excluded_csv: Path | None,
    seriesuids_csv: Path,
    rules: FrocRules = LUNA16_RULES,
) -> FrocResult:
    """Evaluate a submission file against LUNA16's files; `training.froc` states the rules."""
    return froc(read_reference(annotations_csv, excluded_csv, seriesuids_csv), read_submission(submission_csv), rules)


def add_submission_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the `evaluate --submission` form."""
    parser.add_argument(
        "--submission", type=Path, required=True, help="CSV: seriesuid,coordX,coordY,coordZ,probability"
    )
    parser.add_argument("--annotations", type=Path, required=True, help="LUNA16's annotations.csv")
    parser.add_argument("--excluded", type=Path, help="annotations_excluded.csv; default: beside --annotations")
    parser.add_argument("--seriesuids", type=Path, help="seriesuids.csv; default: beside --annotations")
    parser.add_argument("--bootstraps", type=int, default=FrocRules.n_bootstraps, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=FrocRules.seed, help="of the bootstrap; default %(default)s")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--report", type=Path, help="also write a stand-alone HTML report here")


def run_submission(args: argparse.Namespace) -> int:
    """Score, print the table, write what was asked for; the exit status (2: the files cannot be used)."""
    folder = args.annotations.parent
    try:
        result = evaluate_submission(
            args.submission,
            args.annotations,
            args.excluded or published_file(folder, "annotations_excluded.csv"),
            args.seriesuids or published_file(folder, "seriesuids.csv"),
            FrocRules(n_bootstraps=args.bootstraps, seed=args.seed),
        )
    except (Luna16Error, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    score = node21_score(result, n_bootstraps=args.bootstraps, seed=args.seed)
    sys.stdout.write(format_table(result, score))
    if args.json:
        args.json.write_text(json.dumps(figures(result, score), indent=2) + "\n", encoding="utf-8")
    if args.report:
        # Only here: matplotlib takes a second to import, and the table needs none of it.
        from training.evaluate_report import write_submission_report  # noqa: PLC0415

        write_submission_report(args.report, result, score, title=args.submission.stem)
    return 0


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
