"""`lungnodule risk`: risk and guidelines for nodules that are told, without a scan or a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import ExitCode, errors_in_one_line, fail

if TYPE_CHECKING:
    from app.reporting.assessment import Assessment


def risk(
    request: Annotated[
        typer.FileBinaryRead | None,
        typer.Argument(metavar="FILE", help="JSON as /v1/risk takes it; - reads standard input."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as the API gives it.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a request to start from, and exit.")] = False,
) -> None:
    """Brock risk, doubling time, Lung-RADS, Fleischner and BTS for nodules that are told.

    For example:

    - `lungnodule risk --example > nodules.json`

    - `lungnodule risk nodules.json`

    - `lungnodule risk --example | lungnodule risk - --json`
    """
    with errors_in_one_line():
        import json

        from app.reporting.assessment import RiskRequest, assess
        from app.reporting.clinical_context import told_from_json
        from app.reporting.risk_examples import RISK_EXAMPLES

        if example:
            typer.echo(json.dumps(RISK_EXAMPLES["screening"][1], indent=2))
            return
        if request is None:
            fail(ExitCode.USAGE, "request_missing", "Name a FILE with the nodules, or - for standard input.")
        assessment = assess(told_from_json(request.read(), RiskRequest))
        typer.echo(assessment.model_dump_json(indent=2) if as_json else "\n".join(assessment_lines(assessment)))


def assessment_lines(assessment: Assessment) -> list[str]:
    """The assessment in lines for a terminal."""
    exam = assessment.lung_rads
    lines = [f"Lung-RADS of the exam: {exam.category or exam.cannot_be_assigned}"]
    for nodule in assessment.nodules:
        lines.append(f"{nodule.nodule_id}")
        for brock in nodule.brock:
            lines.append(f"  {brock.model}: {_probability(brock.probability, brock.probability_range)}")
            lines += [f"    {brock.cannot_be_computed}"] if brock.cannot_be_computed else []
        if nodule.growth is not None:
            days = nodule.growth.doubling_time_days
            doubling = "" if days is None else f", doubling time {days:.0f} days"
            change = nodule.growth.volume_change_fraction
            lines.append(f"  growth: {change:+.0%} of the volume{doubling} ({nodule.growth.reading})")
        for answer in nodule.guidelines:
            lines.append(f"  {answer.guideline}: {answer.category or answer.cannot_be_assigned}")
            lines += (
                [f"    {answer.management}", f"    {answer.rule.id}: {answer.rule.sentence}"] if answer.rule else []
            )
            missing = ", ".join(item.name for item in answer.inputs_missing)
            lines += [f"    not told: {missing}"] if missing else []
            lines += [f"    {note}" for note in answer.notes]
    if assessment.nodules:
        lines.append(f"Brock: {assessment.nodules[0].brock[0].means}")
    return [*lines, *assessment.notes, assessment.disclaimer]


def _probability(probability: float | None, ends: tuple[float, float] | None) -> str:
    if probability is not None:
        return f"{probability:.1%}"
    return f"between {ends[0]:.1%} and {ends[1]:.1%}, by what is missing" if ends else "not computed"
