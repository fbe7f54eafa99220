"""What the service reads, and where its limits lie: asked before an upload, not learnt from a refusal."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.model_choice import called
from app.api.schemas import SCHEMA_VERSION
from app.api.service import Service, ServiceDependency
from app.imaging.read_options import REPAIRS
from app.imaging.transfer_syntax import TRANSFER_SYNTAXES
from app.inference.findings import DISCLAIMER

router = APIRouter(tags=["models"])

_SOP_CLASSES = (
    ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage"),
)


class Format(BaseModel):
    """One way to send a scan."""

    name: str = Field(description="What acceptance.source_format will say.")
    files: str = Field(description="What to send.")


class NamedUid(BaseModel):
    """A DICOM UID and its name."""

    uid: str = Field(description="The UID.")
    name: str = Field(description="Its name in DICOM.")


class RequestLimits(BaseModel):
    """What one request may be."""

    max_request_bytes: int = Field(description="Largest body, in bytes.")
    max_files: int = Field(description="Most file parts.")
    max_fields: int = Field(description="Most text fields.")
    max_field_bytes: int = Field(description="Longest text field, in bytes.")
    max_part_headers: int = Field(description="Most headers of one part.")
    max_part_header_bytes: int = Field(description="Longest header of one part, in bytes.")
    upload_timeout_s: float = Field(description="Longest wait for the body, in seconds.")
    upload_grace_s: float = Field(description="Seconds before the least rate counts.")
    min_upload_bytes_per_s: float = Field(description="Least average rate of the body after the grace, in bytes/s.")
    max_document_bytes: int = Field(description="Largest JSON body, in bytes.")
    document_timeout_s: float = Field(description="Longest wait for a JSON body, in seconds.")
    max_header_bytes: int = Field(description="Largest header of the request, in bytes.")
    max_headers: int = Field(description="Most fields of that header.")
    header_timeout_s: float = Field(description="Longest wait for it, in seconds.")
    send_timeout_s: float = Field(
        description="Seconds after which a client that takes nothing of its answer in is let go."
    )
    keep_alive_s: float = Field(description="Seconds after which an idle connection is closed.")
    max_connections: int = Field(description="Most connections at the same time.")
    max_connections_per_address: int = Field(description="Most of them from one address; 0: no limit.")
    analysis_timeout_s: float = Field(description="Longest analysis, in seconds.")
    max_batch_jobs: int = Field(description="Most series that become jobs of one batch.")
    places: int = Field(description="Requests admitted at the same time; one more is answered 429.")


class Capabilities(BaseModel):
    """Formats, options and limits of this installation."""

    api_version: str = Field(description="Version in the path of the API.")
    result_schema_version: str = Field(description="schema_version of the answers.")
    disclaimer: str = Field(description="What the answers must not be used for.")
    formats: list[Format] = Field(description="Formats that are read.")
    sop_classes: list[NamedUid] = Field(description="DICOM SOP classes that are analysed.")
    transfer_syntaxes: list[NamedUid] = Field(description="DICOM transfer syntaxes that are read.")
    default_model: str = Field(description="The model in force, name:version; /v1/models says more.")
    repairs: list[str] = Field(description="What the form field allow_repairs takes.")
    request_limits: RequestLimits = Field(description="Of one request.")
    scan_limits: dict[str, float] = Field(
        description="Of one scan, by name: counts, or bytes, mm and seconds where the name says so."
    )


@router.get("/v1/capabilities", summary="Formats and limits")
async def capabilities(service: ServiceDependency) -> Capabilities:
    """What can be sent, and how much of it."""
    active = await asyncio.to_thread(service.models.active)
    return Capabilities(
        api_version="v1",
        result_schema_version=SCHEMA_VERSION,
        disclaimer=DISCLAIMER,
        formats=[
            Format(name="dicom", files="DICOM files of one or more series, in any order, or a zip of them"),
            Format(name="dicom-enhanced", files="Enhanced (multi-frame) CT, one file or a zip"),
            Format(name="metaimage", files=".mha, or .mhd together with its .raw or .zraw"),
            Format(name="nifti", files=".nii or .nii.gz"),
            Format(name="nrrd", files=".nrrd with its data inside"),
        ],
        sop_classes=[NamedUid(uid=uid, name=name) for uid, name in _SOP_CLASSES],
        transfer_syntaxes=[NamedUid(uid=syntax.uid, name=syntax.name) for syntax in TRANSFER_SYNTAXES.values()],
        default_model=called([active])[0],
        repairs=sorted(REPAIRS),
        request_limits=_request_limits(service),
        scan_limits=asdict(service.settings.read),
    )


def _request_limits(service: Service) -> RequestLimits:
    limits, settings = service.upload_limits(), service.settings
    return RequestLimits(
        max_request_bytes=limits.request_bytes,
        max_files=limits.files,
        max_fields=limits.fields,
        max_field_bytes=limits.field_bytes,
        max_part_headers=limits.part_headers,
        max_part_header_bytes=limits.part_header_bytes,
        upload_timeout_s=limits.seconds,
        upload_grace_s=limits.grace_s,
        min_upload_bytes_per_s=limits.bytes_per_s,
        max_document_bytes=settings.max_document_bytes,
        document_timeout_s=settings.document_timeout_s,
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
        header_timeout_s=settings.header_timeout_s,
        send_timeout_s=settings.send_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        analysis_timeout_s=settings.analysis_timeout_s,
        max_batch_jobs=settings.max_batch_jobs,
        places=service.line.capacity,
    )
