"""`lungnodule mercure`: a processing module of the DICOM orchestrator mercure.

The contract is that of https://mercure-imaging.org/docs/modules.html: DICOM files and ``task.json`` in MERCURE_IN_DIR,
settings under ``process`` > ``settings`` of it; DICOM files and ``result.json`` out, in MERCURE_OUT_DIR, whose key
``__mercure_notification`` says what mercure tells people.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import ExitCode, errors_in_one_line, fail
from app.cli.setup import find_named_model, quiet_libraries, settings_with

if TYPE_CHECKING:
    from app.api.schemas import AnalysisResult
    from app.inference.findings import Findings
    from app.reporting.material import Report
    from app.settings import Settings

TASK, RESULT, NOTIFICATION = "task.json", "result.json", "__mercure_notification"
_MOST_FAULTS = 5
_SEPARATOR = "#"
"""Between SeriesInstanceUID and the rest of a file's name, as mercure names what comes in."""


def mercure(
    input_dir: Annotated[
        Path,
        typer.Option("--input", envvar="MERCURE_IN_DIR", exists=True, file_okay=False, help="DICOM and task.json."),
    ],
    output_dir: Annotated[
        Path, typer.Option("--output", envvar="MERCURE_OUT_DIR", file_okay=False, help="Gets DICOM and result.json.")
    ],
) -> None:
    """Work on one task of the DICOM orchestrator mercure. Research use only, not for diagnosis.

    The settings of the task may hold `model`, `operating_point`, `series_uid`, `allow_repairs`, `kinds` (of sr, seg,
    gsps, ko, sc, pdf; sr and seg unless said otherwise) and `notify` (nodules, always, never).

    For example:

    - `lungnodule mercure`, started by mercure

    - `lungnodule mercure --input in --output out`
    """
    with errors_in_one_line():
        from app.api.schemas import result_from_findings

        quiet_libraries()
        task = _settings_of(input_dir / TASK)
        settings = settings_with(models=task.model)
        files = sorted(path for path in input_dir.rglob("*") if path.is_file() and path.suffix != ".json")
        if not files:
            fail(ExitCode.SCAN, "empty_upload", "The input folder holds no DICOM file.")
        findings = _analysed(files, settings, task)
        result = result_from_findings(findings)
        report = _report(result, findings)
        output_dir.mkdir(parents=True, exist_ok=True)
        _write_objects(files, report, settings, task, output_dir)
        # Last: mercure takes what lies there once the module has ended, and this says that it was done.
        (output_dir / RESULT).write_text(json.dumps(_told(result, task.notify)), encoding="utf-8")


def _settings_of(path: Path) -> Any:  # noqa: ANN401 - the model is made here, so that --help loads no pydantic
    from typing import Literal

    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class TaskSettings(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str | None = None
        operating_point: str | None = None
        series_uid: str | None = None
        allow_repairs: tuple[Literal["missing_slices", "duplicate_slices"], ...] = ()
        kinds: tuple[Literal["sr", "seg", "gsps", "ko", "sc", "pdf"], ...] = Field(
            ("sr", "seg"), min_length=1, max_length=6
        )
        notify: Literal["nodules", "always", "never"] = "nodules"

    told: Any = {}
    if path.is_file():
        try:
            task = json.loads(path.read_bytes())
            process = task.get("process") or {}
            # A rule with several modules has a list; mercure gives each module only its own.
            told = (process[0] if isinstance(process, list) else process).get("settings") or {}
        except (ValueError, AttributeError, IndexError, RecursionError):
            fail(ExitCode.USAGE, "task_invalid", "task.json is not what mercure writes.")
    try:
        return TaskSettings.model_validate(told)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)[:_MOST_FAULTS]
        )
        fail(ExitCode.USAGE, "task_settings", f"The settings of the task do not fit: {faults}.")


def _analysed(files: list[Path], settings: Settings, task: Any) -> Findings:  # noqa: ANN401
    from app.api.model_choice import store_source
    from app.api.service import threads_for
    from app.imaging.read_options import ReadOptions
    from app.inference.pipeline import AnalysisOptions, analyse

    loaded = store_source(settings).load(find_named_model(settings, settings.models[0]))
    reading = ReadOptions(
        series_uid=task.series_uid,
        limits=settings.read,
        allow_repairs=frozenset(task.allow_repairs),
        scratch_root=settings.temp_dir,
    )
    options = AnalysisOptions(
        read=reading,
        operating_point=task.operating_point,
        threads=threads_for(settings),
        detector_memory_mib=settings.detector_memory_mib,
    )
    return analyse(files, loaded, options)


def _report(result: AnalysisResult, findings: Findings) -> Report:
    from app.reporting.bundle import assessment_in
    from app.reporting.material import Report

    return Report(findings, datetime.now(UTC), assessment_in(result.model_dump_json()))


def _write_objects(files: list[Path], report: Report, settings: Settings, task: Any, folder: Path) -> None:  # noqa: ANN401
    from app.reporting.dicom_objects import in_bytes
    from app.reporting.originals import Originals
    from app.reporting.results import dicom_objects

    originals = Originals(files, report.findings, settings.read, settings.temp_dir)
    for made in dicom_objects(report, originals, task.kinds):
        name = f"{made.SeriesInstanceUID}{_SEPARATOR}{made.Modality.lower()}.dcm"
        (folder / name).write_bytes(in_bytes(made))


def _told(result: AnalysisResult, notify: str) -> dict[str, Any]:
    count = len(result.nodules)
    requested = notify == "always" or (notify == "nodules" and count > 0)
    told: dict[str, Any] = {"nodules": count, "result": json.loads(result.model_dump_json())}
    if notify != "never":
        text = f"{count} lung nodule{'' if count == 1 else 's'} found. {result.disclaimer}"
        told[NOTIFICATION] = {"text": text, "requested": requested}
    return told
