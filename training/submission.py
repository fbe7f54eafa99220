"""`python -m training evaluate --submission results.csv --annotations annotations.csv`: a LUNA16 submission, scored."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from app.evaluation.froc import LUNA16_RULES, FrocResult, FrocRules, froc
from app.evaluation.node21 import node21_score
from app.evaluation.reference import Luna16Error, published_file, read_reference
from app.evaluation.submission import figures, format_table, read_submission


def evaluate_submission(
    submission_csv: Path,
    annotations_csv: Path,
    excluded_csv: Path | None,
    seriesuids_csv: Path,
    rules: FrocRules = LUNA16_RULES,
) -> FrocResult:
    """Evaluate a submission file against LUNA16's files; `app.evaluation.froc` states the rules."""
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
