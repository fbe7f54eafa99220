"""`lungnodule models evaluate` and `compare`: a stored model over LUNA16, or over any folder in its layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import ExitCode, errors_in_one_line, fail
from app.cli.setup import find_named_model, quiet_libraries, settings_with

if TYPE_CHECKING:
    from app.evaluation.estimates import PairedDifference
    from app.evaluation.froc import FrocResult, FrocRules
    from app.evaluation.running import ScanMarks, Task
    from app.evaluation.scans import EvaluationSet
    from app.settings import Settings

ModelName = Annotated[str, typer.Argument(metavar="NAME[:VERSION]", help="Without a version the newest.")]
Root = Annotated[
    Path,
    typer.Option("--luna16", exists=True, file_okay=False, help="Scans, annotations.csv, annotations_excluded.csv ..."),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", file_okay=False, help="Gets marks as they are known, and the submission.")
]
Workers = Annotated[int, typer.Option(min=1, max=256, help="Processes; each loads the model.")]
PresentOnly = Annotated[bool, typer.Option("--present-only", help="Leave out listed scans that are not there.")]
Bootstraps = Annotated[int, typer.Option(min=1, help="Draws of scans for the intervals.")]


def evaluate(
    name: ModelName,
    luna16: Root,
    output: Output = Path("evaluation"),
    workers: Workers = 1,
    present_only: PresentOnly = False,
    bootstraps: Bootstraps = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a model over LUNA16 and print the official FROC table, CPM and NODE21's figures adapted to CT.

    The scans go through the service's own pipeline, at every candidate that the model has. Run it again after it was
    stopped: what is done is not done again. OUTPUT gets LUNA16's submission CSV.

    For example: `lungnodule models evaluate lungnodule --luna16 LUNA16/ --workers 8`
    """
    with errors_in_one_line():
        import json

        from app.evaluation.node21 import node21_score
        from app.evaluation.submission import figures, format_table

        scans, rules = _scans(luna16, present_only), _rules(bootstraps)
        result, refused = _evaluated(name, scans, output, workers, rules)
        score = node21_score(result, n_bootstraps=rules.n_bootstraps, seed=rules.seed)
        if as_json:
            typer.echo(json.dumps(figures(result, score) | {"refused": refused}, indent=2))
        else:
            typer.echo(_heading(scans, refused) + format_table(result, score), nl=False)


def compare(
    first: ModelName,
    second: ModelName,
    luna16: Root,
    output: Output = Path("evaluation"),
    workers: Workers = 1,
    present_only: PresentOnly = False,
    bootstraps: Bootstraps = 1000,
) -> None:
    """Compare two models on the same scans: first minus second, intervals by resampling scans once for both.

    For example: `lungnodule models compare lungnodule:0.2.0 lungnodule:0.1.0 --luna16 LUNA16/ --workers 8`
    """
    with errors_in_one_line():
        from app.evaluation.comparison import froc_difference

        scans, rules = _scans(luna16, present_only), _rules(bootstraps)
        results: list[FrocResult] = []
        for name in (first, second):
            result, refused = _evaluated(name, scans, output, workers, rules)
            results.append(result)
            one = result.sensitivities[1.0]
            typer.echo(f"{name}: CPM {result.cpm}, sensitivity at 1 FP/scan {one}, {refused} scans refused")
        difference = froc_difference(results[0], results[1], rules)
        typer.echo(f"{first} minus {second}, {len(results[0].scans)} scans of {scans.listed} listed:")
        typer.echo(f"  CPM                       {_difference(difference.cpm)}")
        typer.echo(f"  sensitivity at 1 FP/scan  {_difference(difference.sensitivity_at_1_fp_per_scan)}")


def _scans(luna16: Path, present_only: bool) -> EvaluationSet:  # noqa: FBT001 - typer's flag
    from app.evaluation.reference import Luna16Error
    from app.evaluation.scans import evaluation_set

    try:
        scans = evaluation_set(luna16, present_only=present_only)
    except Luna16Error as error:
        fail(ExitCode.SCAN, "luna16_unusable", str(error))
    if scans.reference.n_nodules == 0:
        fail(ExitCode.SCAN, "luna16_unusable", "No nodule is annotated in these scans; sensitivity is not defined.")
    return scans


def _rules(bootstraps: int) -> FrocRules:
    from app.evaluation.froc import FrocRules

    return FrocRules(n_bootstraps=bootstraps)


def _evaluated(name: str, scans: EvaluationSet, output: Path, workers: int, rules: FrocRules) -> tuple[FrocResult, int]:
    """The evaluation, with its submission written, and how many scans the service refused."""
    from app.evaluation.froc import froc
    from app.evaluation.running import marks_folder, run_model
    from app.evaluation.submission import write_submission

    quiet_libraries()
    task = _task(settings_with(), name, workers)
    done = run_model(task, scans, output, workers=workers, on_scan=_say)
    marks = [mark for scan in done for mark in scan.marks]
    folder = marks_folder(output, task)
    write_submission(folder.with_name(f"{folder.name}.csv"), marks)
    return froc(scans.reference, marks, rules), sum(scan.refused is not None for scan in done)


def _task(settings: Settings, name: str, workers: int) -> Task:
    from dataclasses import replace

    from app.api.model_choice import store_source
    from app.evaluation.running import Task

    threads = settings.threads or max(1, (os.cpu_count() or 1) // workers)
    source = store_source(settings)
    return Task(
        source=replace(source, session=replace(source.session, threads=threads)),
        folder=find_named_model(settings, name),
        limits=settings.read,
        threads=threads,
        detector_memory_mib=settings.detector_memory_mib,
    )


def _say(done: int, count: int, scan: ScanMarks) -> None:
    said = f"refused: {scan.refused}" if scan.refused else f"{len(scan.marks)} marks"
    typer.echo(f"{done}/{count} {scan.series_uid} {said}", err=True)


def _heading(scans: EvaluationSet, refused: int) -> str:
    here = len(scans.reference.series_uids)
    part = "" if here == scans.listed else f"Only {here} of the {scans.listed} listed scans: no figure of LUNA16.\n"
    return part + (f"{refused} scans refused by the service count without marks.\n" if refused else "")


def _difference(found: PairedDifference) -> str:
    return f"{found.difference}, p = {found.p_value:.3f}"
