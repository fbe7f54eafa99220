"""`lungnodule analyse`: one CT in, a table or the API's JSON out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import errors_in_one_line
from app.cli.risk import assessment_lines
from app.cli.setup import find_named_model, quiet_libraries, settings_with

if TYPE_CHECKING:
    from app.inference.findings import Findings, Nodule, OnProgress
    from app.inference.model_store import LoadedModel
    from app.inference.pipeline import AnalysisOptions
    from app.reporting.assessment import Assessment
    from app.settings import Settings

STAGES = {
    "read": "Reading",
    "lungs": "Finding the lungs",
    "prepare": "Preparing",
    "detect": "Detecting",
    "characterise": "Characterising",
    "measure": "Measuring",
    "prior": "Analysing the prior",
    "compare": "Comparing",
}


def analyse(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            exists=True,
            help="A DICOM folder or zip, its files, or one .mha, .mhd, .nii(.gz), .nrrd.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as the API answers it.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", file_okay=False, help="Also write result.json and nodules.csv into this folder."
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(exists=True, help="An earlier scan of the same patient to compare with; whatever PATH takes."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            help="With --output: which, with commas between: json, csv, pdf, fhir, and of DICOM scans sr, seg, gsps, "
            "ko, sc; or `all`, which leaves out what there cannot be."
        ),
    ] = None,
    series_uid: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID to analyse, where a study holds several that fit.")
    ] = None,
    operating_point: Annotated[
        str | None, typer.Option(help="Named threshold of the model; `lungnodule models show` lists them.")
    ] = None,
    allow_repair: Annotated[
        list[str] | None, typer.Option(help="Repair instead of refusing: missing_slices, duplicate_slices; repeatable.")
    ] = None,
    context: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="JSON file with the clinical context, for risk and guidelines: docs/guidelines.md.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="NAME or NAME:VERSION; the first of LUNGNODULE_MODELS.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="CPU threads; 0 takes one for each core.")] = None,
) -> None:
    """Find the nodules of one chest CT.

    For example:

    - `lungnodule analyse study/`

    - `lungnodule analyse series.zip --json > result.json`

    - `lungnodule analyse study/ --context patient.json`

    - `lungnodule analyse ct.nii.gz --operating-point sensitive --output findings/`

    - `lungnodule analyse 2026/ --prior 2025/`

    - `lungnodule analyse study/ --output findings/ --formats all`
    """
    with errors_in_one_line():
        from app.api.model_choice import store_source
        from app.api.schemas import result_from_findings
        from app.cli.result_files import chosen_formats, write_results
        from app.reporting.clinical_context import ClinicalContext, told_from_json
        from app.reporting.originals import Originals

        told = None if context is None else told_from_json(context.read_bytes(), ClinicalContext)
        quiet_libraries()
        chosen = chosen_formats(formats)
        settings = settings_with(device=device, threads=threads, models=model)
        loaded = store_source(settings).load(find_named_model(settings, settings.models[0]))
        options = _options(settings, series_uid, allow_repair, operating_point)
        source = paths[0] if len(paths) == 1 else paths
        findings = _analysed(source, prior, loaded, options)
        result = result_from_findings(findings, told)
        document = result.model_dump_json(indent=2)
        if output is not None:
            originals = Originals(source, findings, settings.read)
            write_results(output, chosen, document, originals, leave_out=formats == "all")
        if as_json:
            typer.echo(document)
        else:
            _print_all(findings, None if told is None else result.assessment)


def _options(
    settings: Settings, series_uid: str | None, allow_repair: list[str] | None, operating_point: str | None
) -> AnalysisOptions:
    from app.imaging.read_options import ReadOptions
    from app.inference.pipeline import AnalysisOptions

    return AnalysisOptions(
        read=ReadOptions(series_uid=series_uid, limits=settings.read, allow_repairs=_known_repairs(allow_repair)),
        operating_point=operating_point,
        threads=settings.threads or os.cpu_count() or 1,
        detector_memory_mib=settings.detector_memory_mib,
    )


def _analysed(source: Path | list[Path], prior: Path | None, model: LoadedModel, options: AnalysisOptions) -> Findings:
    from app.cli.comparison import compared_analysis
    from app.inference.pipeline import analyse as analyse_scan

    with _progress() as on_progress:
        if prior is None:
            return analyse_scan(source, model, options, on_progress)
        return compared_analysis(source, prior, model, options, on_progress)


def _print_all(findings: Findings, assessment: Assessment | None) -> None:
    from app.cli.comparison import print_comparison

    _print_table(findings)
    print_comparison(findings)
    if assessment is not None:
        typer.echo("\n".join(assessment_lines(assessment)))


def _known_repairs(asked: list[str] | None) -> frozenset[str]:
    from app.imaging.errors import OptionError
    from app.imaging.read_options import REPAIRS

    repairs = frozenset(asked or ())
    if not repairs <= REPAIRS:
        raise OptionError(f"--allow-repair knows {', '.join(sorted(REPAIRS))}.", code="unknown_repair")
    return repairs


@contextmanager
def _progress() -> Iterator[OnProgress | None]:
    """A bar on standard error while it is a terminal; nothing otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from app.inference.findings import Progress as Step

    columns = (TextColumn("{task.description:<18}"), BarColumn(), TextColumn("{task.fields[detail]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading", total=1.0, detail="")

        def show(step: Step) -> None:
            bar.update(
                task,
                description=STAGES.get(step.stage, step.stage),
                completed=step.fraction,
                detail=step.detail,
                refresh=step.fraction == 0.0,  # every stage is seen, however short
            )

        yield show


def _print_table(findings: Findings) -> None:
    from rich.console import Console
    from rich.table import Table

    from app.inference.findings import DISCLAIMER

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    table = Table(title=_title(findings), title_justify="left", caption=DISCLAIMER, caption_justify="left")
    for heading in (
        "nodule",
        "probability",
        "malignancy",
        "type",
        "diameter",
        "volume",
        "center LPS (x, y, z)",
        "place",
        "images",
    ):
        table.add_column(heading, justify="left" if heading in ("nodule", "type", "place", "images") else "right")
    for nodule in findings.nodules:
        table.add_row(
            nodule.id,
            f"{nodule.probability:.2f}",
            _malignancy(nodule),
            (nodule.kind or "-").replace("_", "-"),
            f"{nodule.diameter_mm:.1f} mm",
            "-" if nodule.volume_mm3 is None else f"{nodule.volume_mm3:.0f} mm³",
            ", ".join(f"{value:.1f}" for value in nodule.center_lps_mm) + " mm",
            _place(nodule),
            _images(nodule),
        )
    console.print(table)
    for notice in (*findings.acceptance.warnings, *findings.acceptance.repairs, *findings.warnings):
        console.print(f"note[{notice.code}]: {notice.message}", markup=False, soft_wrap=True)
    seconds = sum(findings.timings_s.values()) if "total" not in findings.timings_s else findings.timings_s["total"]
    console.print(
        f"{findings.model.name} {findings.model.version}{_precision(findings)} on {findings.execution_provider}, "
        f"operating point {findings.operating_point.name} ({findings.operating_point.threshold:g}), {seconds:.1f} s",
        soft_wrap=True,
    )


def _precision(findings: Findings) -> str:
    """Only where it is not what everyone expects."""
    variants = [f"{network} {name}" for network, name in findings.precision.items() if name != "fp32"]
    return f" ({', '.join(variants)})" if variants else ""


def _title(findings: Findings) -> str:
    count = len(findings.nodules)
    chosen = findings.acceptance.chosen
    series = f", series {chosen.series_instance_uid}" if chosen.series_instance_uid else ""
    return f"{count or 'No'} nodule{'' if count == 1 else 's'} in {chosen.slice_count} slices{series}"


def _malignancy(nodule: Nodule) -> str:
    return "-" if nodule.malignancy_probability is None else f"{nodule.malignancy_probability:.2f} {nodule.label}"


def _place(nodule: Nodule) -> str:
    """Side, the lobe where it is named, and whether it lies at the pleura."""
    place = nodule.location
    lobe = f" {place.lobe}?" if place and place.lobe else ""
    return f"{nodule.side or '-'}{lobe}{', pleura' if place and place.is_juxtapleural else ''}"


def _images(nodule: Nodule) -> str:
    """Instance numbers as a PACS counts them, else slice indices."""
    numbers = [s.index_z if s.instance_number is None else s.instance_number for s in nodule.slices]
    return f"{min(numbers)}-{max(numbers)}" if numbers else "-"
