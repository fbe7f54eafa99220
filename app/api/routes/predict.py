"""POST /v1/predict: a chest CT in, its nodules out, in one exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.types import Receive, Scope, Send

from app.api.errors import EmptyUpload, FieldFault, InvalidFields
from app.api.problems import problem_responses
from app.api.schemas import AnalysisResult, result_from_findings
from app.api.service import Service, ServiceDependency
from app.api.shadowing import offer_upload
from app.imaging.read_options import REPAIRS, ReadOptions
from app.inference.pipeline import AnalysisOptions, choose_operating_point
from app.multipart import FILES_FIELD, Upload
from app.reporting.clinical_context import ClinicalContext, ContextField, advice_of, place_of
from app.upload_folders import request_folder
from app.uploads import receive_upload

router = APIRouter(tags=["analysis"])

Repair = Annotated[str, Field(pattern=f"^({'|'.join(sorted(REPAIRS))})$", json_schema_extra={"enum": sorted(REPAIRS)})]


FormContext = Annotated[
    ContextField, WithJsonSchema({"type": "string", "contentMediaType": "application/json", "maxLength": 1024})
]


class ScanOptions(BaseModel):
    """Text fields that say how a scan is analysed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operating_point: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Operating point of the model; /v1/models lists them."
    )
    model: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="name or name:version of a model of the store; /v1/models lists them."
    )
    allow_repairs: list[Repair] = Field(
        default_factory=list,
        description="Faults that may be repaired instead of refused; repeat the field, or separate by commas.",
    )


class PredictOptions(ScanOptions):
    """Text fields of the form, all optional."""

    series_uid: Annotated[str, Field(pattern=r"^[0-9.]{0,64}$")] | None = Field(
        default=None, description="SeriesInstanceUID to analyse, when the upload holds several that fit."
    )
    context: FormContext | None = Field(
        default=None, description="What is known of patient and exam, as JSON: the `context` of /v1/risk."
    )


Options = TypeVar("Options", bound=ScanOptions)


def _form_fields(form: type[ScanOptions]) -> dict[str, Any]:
    """Schemas of the text fields. A form cannot send null: what is optional is left out."""
    fields: dict[str, Any] = form.model_json_schema()["properties"]
    for field in fields.values():
        if "anyOf" in field:
            field.update(next(kind for kind in field.pop("anyOf") if kind["type"] != "null"))
            field.pop("default", None)
        if field["type"] == "array":
            # What is left blank is sent empty; see `parse_fields`.
            items = field["items"]
            field["items"] = {**items, "enum": [*items["enum"], ""], "pattern": items["pattern"].replace(")$", ")?$")}
        # Swagger UI fills the form with examples, and invents what has none.
        field["example"] = [] if field["type"] == "array" else ""
    return fields


def form_body(form: type[ScanOptions]) -> dict[str, Any]:
    """OpenAPI's description of a multipart body with a scan and these text fields."""
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILES_FIELD],
                    "additionalProperties": False,
                    "properties": {
                        FILES_FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "The scan: DICOM files in any order, a zip of them, .mha, .mhd with its "
                            ".raw or .zraw, .nii, .nii.gz or .nrrd. Repeat the part for many files.",
                        },
                        **_form_fields(form),
                    },
                },
                "encoding": {"files": {"contentType": "application/octet-stream"}},
            }
        },
    }


@router.post(
    "/v1/predict",
    summary="Find lung nodules in a chest CT",
    response_model=AnalysisResult,
    response_description="The nodules of the series, or none.",
    responses=problem_responses(400, 408, 413, 415, 422, 429, 500, 501, 503),
    openapi_extra={"requestBody": form_body(PredictOptions)},
)
async def predict(request: Request, service: ServiceDependency) -> Response:
    """Upload one CT series and wait for its nodules.

    The body is written to disk as it arrives and removed once the answer is sent. One analysis runs at a time; when
    every place in the line behind it is taken, the answer is 429 with Retry-After.
    """
    service.refuse_when_draining()
    service.refuse_when_intake_only()
    async with AsyncExitStack() as held:
        held.enter_context(service.line.place())
        folder = await held.enter_async_context(request_folder(service.uploads))
        began = time.perf_counter()
        upload = await receive_upload(request.stream(), dict(request.headers), folder, service.upload_limits())
        received = time.perf_counter()
        result, after = await _analysed(request, service, upload)
        service.metrics.observe_stages({"receive": received - began})
        body, until_sent = result.model_dump_json(), held.pop_all()
    return _Answer(body, until_sent, after)


class _Answer(Response):
    """A result that is sent before what its request held is given back: removing an upload takes a while.

    Given back in any case, also when there is nobody left to answer.
    """

    def __init__(self, result_json: str, held: AsyncExitStack, after: Callable[[], None]) -> None:
        super().__init__(result_json, media_type="application/json")
        self._held = held
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)
            await asyncio.to_thread(self._after)


async def _analysed(request: Request, service: Service, upload: Upload) -> tuple[AnalysisResult, Callable[[], None]]:
    """The answer, and what is to be done once it is sent."""
    if not await asyncio.to_thread(any_content, upload):
        raise EmptyUpload("Send the scan in one or more non-empty parts named 'files'.")
    asked = parse_fields(upload.fields, PredictOptions)
    model = await asyncio.to_thread(service.model, asked.model)
    options = AnalysisOptions(
        read=ReadOptions(
            series_uid=asked.series_uid,
            limits=service.settings.read,
            allow_repairs=frozenset(asked.allow_repairs),
            scratch_root=upload.files[0].path.parent,
        ),
        operating_point=choose_operating_point(model, asked.operating_point).name,
        threads=service.threads(),
        detector_memory_mib=service.settings.detector_memory_mib,
    )
    findings, waited_s = await service.line.run(service.work(upload.files, model, options), request.receive)
    service.metrics.observe_analysis(findings, waited_s)
    result = await asyncio.to_thread(result_from_findings, findings, asked.context)
    if service.shadow is None:
        return result, lambda: None
    folder = upload.files[0].path.parent
    return result, partial(offer_upload, service.shadow, folder, upload.files, options, findings)


def parse_fields(fields: list[tuple[str, str]], form: type[Options]) -> Options:
    """Check the text fields of the form.

    Raises
    ------
    InvalidFields
        Naming each field that is unknown, repeated or does not fit.
    """
    gathered: dict[str, Any] = {}
    repeated = []
    for name, value in fields:
        if not value:
            continue  # browsers send an empty field for what was left blank
        if name == "allow_repairs":
            gathered.setdefault(name, []).extend(part.strip() for part in value.split(","))
        elif name in gathered:
            known = name if name in form.model_fields else ""
            repeated.append(FieldFault(field=known, message="May be given once."))
        else:
            gathered[name] = value
    try:
        options = form.model_validate(gathered)
    except ValidationError as error:
        raise InvalidFields("A form field does not fit; errors name it.", _faults(error, form) + repeated) from None
    if repeated:
        raise InvalidFields("A form field is repeated; errors name it.", repeated)
    return options


def _faults(error: ValidationError, form: type[ScanOptions]) -> list[FieldFault]:
    """Where and why; a name that we do not know may be anything, so it is not repeated."""
    faults = []
    for fault in error.errors(include_input=False, include_url=False):
        if fault["loc"][0] == "context":
            faults.append(FieldFault(field=place_of(fault), message=advice_of(fault, ClinicalContext)))
        elif fault["type"] == "extra_forbidden":
            known = ", ".join([FILES_FIELD, *form.model_fields])
            faults.append(FieldFault(field="", message=f"Unknown form field; the known ones are {known}."))
        else:
            faults.append(FieldFault(field=str(fault["loc"][0]), message=fault["msg"]))
    return faults


def any_content(upload: Upload) -> bool:
    """Whether anything was sent."""
    return any(file.path.stat().st_size for file in upload.files)
