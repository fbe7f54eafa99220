"""A model's card, curve and reports, as they lie beside it in the store."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from fastapi import APIRouter, Response

from app.api.model_documents import (
    HTML_POLICY,
    MEDIA_TYPES,
    Document,
    Froc,
    ReportList,
    card_of,
    froc_of,
    report_of,
    reports_of,
)
from app.api.problems import problem_responses
from app.api.routes.models import found_model
from app.api.service import Service, ServiceDependency

router = APIRouter(tags=["models"])

_MODEL = "/v1/models/{name}/{version}"


def _file(*media_types: str) -> dict[int | str, dict[str, Any]]:
    content = {kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}} for kind in media_types}
    return {200: {"description": "The file.", "content": content}, **problem_responses(404, 503)}


@router.get(
    f"{_MODEL}/card",
    summary="Model card",
    response_class=Response,
    responses=_file(MEDIA_TYPES[".md"]),
)
async def show_model_card(name: str, version: str, service: ServiceDependency) -> Response:
    """How the model was made, what was measured, what it must not be used for; Markdown."""
    return await asyncio.to_thread(lambda: _sent(card_of(found_model(service.models, name, version).folder.path)))


@router.get(f"{_MODEL}/froc", summary="Free-response curve", responses=problem_responses(404, 503))
async def show_model_froc(name: str, version: str, service: ServiceDependency) -> Froc:
    """Sensitivity at a number of false marks a scan, from the metrics of the manifest."""
    return await asyncio.to_thread(lambda: froc_of(found_model(service.models, name, version).manifest))


@router.get(f"{_MODEL}/reports", summary="Reports of a model", responses=problem_responses(404, 503))
async def list_model_reports(name: str, version: str, service: ServiceDependency) -> ReportList:
    """What training wrote into the version's folder `reports`: evaluation, studies, pictures."""
    return await asyncio.to_thread(lambda: reports_of(found_model(service.models, name, version).folder.path))


@router.get(
    f"{_MODEL}/reports/{{report}}",
    summary="One report of a model",
    response_class=Response,
    responses=_file(*MEDIA_TYPES.values()),
)
async def show_model_report(name: str, version: str, report: str, service: ServiceDependency) -> Response:
    """A file of that folder, byte for byte."""
    return await asyncio.to_thread(_report, service, name, version, report)


def _report(service: Service, name: str, version: str, report: str) -> Response:
    return _sent(report_of(found_model(service.models, name, version).folder.path, report))


def _sent(document: Document) -> Response:
    tag = f'"{hashlib.sha256(document.body).hexdigest()}"'
    headers = {"etag": tag}
    if document.media_type.startswith("text/html"):
        headers["content-security-policy"] = HTML_POLICY
    return Response(document.body, media_type=document.media_type, headers=headers)
