"""STOW-RS: a PACS or a router stores CT images here, and what a rule asks for is analysed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from app.api.errors import EmptyUpload
from app.api.job_desk import DeskDependency
from app.api.pacs_desk import PacsDependency
from app.api.problems import problem_responses
from app.api.service import ServiceDependency
from app.api.stow_answer import JSON, XML, Verdict, accepted_type, answer_body, status_of
from app.imaging.inputs import InputFile
from app.pacs.errors import FailureReason, InstanceRefused
from app.pacs.installation import Pacs
from app.pacs.instances import identity_or_none, read_instance
from app.pacs.received import Received
from app.uploads import receive_related

router = APIRouter(tags=["pacs"])

_PART = "application/dicom"
_ANSWERED: dict[int | str, dict[str, Any]] = {
    status: {
        "description": what,
        "content": {JSON: {"schema": {"type": "object"}}, XML: {"schema": {"type": "string"}}},
    }
    for status, what in (
        (200, "Every instance is safe."),
        (202, "Some are; FailedSOPSequence and OtherFailuresSequence say which are not, and why."),
    )
}
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {
        "description": "None is stored: FailedSOPSequence and OtherFailuresSequence say why.",
        "content": {JSON: {"schema": {"type": "object"}}, XML: {"schema": {"type": "string"}}},
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": f'multipart/related; type="{_PART}": one part for each instance.',
        "content": {"multipart/related": {"schema": {"type": "string", "format": "binary"}}},
    }
}
Accept = Annotated[str, Header(description=f"{JSON} (unless said otherwise) or {XML}.")]


@router.post(
    "/dicom-web/studies",
    summary="Store instances (STOW-RS)",
    response_class=Response,
    responses={**_ANSWERED, **problem_responses(400, 404, 408, 413, 415, 422, 429, 500, 503), **_CONFLICT},
    openapi_extra=_BODY,
)
async def store_instances(
    request: Request, service: ServiceDependency, desk: DeskDependency, pacs: PacsDependency, accept: Accept = JSON
) -> Response:
    """Stored means safe on the disk until the series is complete and has become a job.

    The job belongs to the tenant of the key or token that the series came with. This is no archive: a CT series that
    no rule asks for is answered as stored and let go.
    """
    return await _stored(request, service, desk, pacs, accept, None)


@router.post(
    "/dicom-web/studies/{study_uid}",
    summary="Store instances of one study (STOW-RS)",
    response_class=Response,
    responses={**_ANSWERED, **problem_responses(400, 404, 408, 413, 415, 422, 429, 500, 503), **_CONFLICT},
    openapi_extra=_BODY,
)
async def store_study_instances(
    study_uid: str,
    request: Request,
    service: ServiceDependency,
    desk: DeskDependency,
    pacs: PacsDependency,
    accept: Accept = JSON,
) -> Response:
    """As `/dicom-web/studies`; instances of another study are refused."""
    return await _stored(request, service, desk, pacs, accept, study_uid)


async def _stored(
    request: Request,
    service: ServiceDependency,
    desk: DeskDependency,
    pacs: PacsDependency,
    accept: str,
    study_uid: str | None,
) -> Response:
    desk.refuse_when_draining()
    async with desk.upload_folder() as folder:
        limits = service.upload_limits()
        upload = await receive_related(request.stream(), dict(request.headers), folder, limits, _PART)
        if not upload.files:
            raise EmptyUpload("Send each instance as a part of its own.")
        verdicts = await desk.run(_kept, pacs, upload.files, study_uid, desk.sending_tenant(request))
    media_type = accepted_type(accept)
    return Response(answer_body(verdicts, media_type), status_code=status_of(verdicts), media_type=media_type)


def _kept(pacs: Pacs, files: list[InputFile], study_uid: str | None, tenant: str | None) -> list[Verdict]:
    """Judge each part, then keep all that may be kept at once."""
    verdicts, received = [], []
    for file in files:
        try:
            one = _received(pacs, file.path, study_uid, tenant)
        except InstanceRefused as refusal:
            sop_class_uid, sop_uid = identity_or_none(file.path) or (None, None)
            verdicts.append(Verdict(sop_class_uid, sop_uid, refusal.reason))
        else:
            received.append(one)
            verdicts.append(Verdict(one.instance.sop_class_uid, one.instance.sop_uid, None))
    pacs.shelf.put(received, tenant=tenant)
    return verdicts


def _received(pacs: Pacs, path: Path, study_uid: str | None, tenant: str | None) -> Received:
    most = pacs.config.receive.max_instance_bytes
    if path.stat().st_size > most:
        raise InstanceRefused(
            FailureReason.OUT_OF_RESOURCES, f"An instance has more than {most} bytes.", code="instance_too_large"
        )
    instance = read_instance(path)
    if study_uid is not None and instance.study_uid != study_uid:
        raise InstanceRefused(FailureReason.DOES_NOT_MATCH, "The instance is of another study.", code="other_study")
    return pacs.shelf.taken(path, instance, tenant=tenant)
