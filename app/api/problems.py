"""Errors as RFC 9457 problem details: one table from exception to status.

The ``type`` is the kind of problem, one for each row, and resolves to its section of the page that the service itself
serves. The ``code`` may say more precisely what is wrong; both are part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.api.waiting_line import ClientHungUp, LineFull
from app.imaging import errors
from app.imaging.errors import LungNoduleError, OptionError
from app.jobs import records as jobs
from app.jobs.runner import JobTimeout
from app.multipart import MalformedUpload
from app.pacs.errors import PacsNotConfigured
from app.uploads import NotMultipart, StorageFull, UploadTooSlow

MEDIA_TYPE = "application/problem+json"


class FieldFault(BaseModel):
    """One part of the request that does not fit."""

    field: str = Field(description="Where it is: the form field, or the path of the parameter.")
    message: str = Field(description="What is wrong and what would fit; never the value that was sent.")


class InvalidFields(OptionError):
    """Form fields that are unknown or do not fit."""

    default_code = "invalid_option"

    def __init__(self, message: str, faults: Sequence[FieldFault]) -> None:
        super().__init__(message)
        self.faults = list(faults)


class EmptyUpload(LungNoduleError):
    """No file, or only empty ones."""

    default_code = "empty_upload"


class NotFound(LungNoduleError):
    """What the path names does not exist."""

    default_code = "not_found"


class NotReady(LungNoduleError):
    """The service cannot take work now."""

    default_code = "not_ready"


class AnalysisTimeout(LungNoduleError):
    """The analysis took longer than the service allows."""

    default_code = "analysis_timeout"


@dataclass(frozen=True)
class ProblemKind:
    """One kind of problem."""

    name: str
    status: int
    title: str
    advice: str
    """What the caller can do; shown on the page that ``type`` points to."""


_RETRY = "Try again after the seconds in the Retry-After header."
_TIMEOUT = ProblemKind(
    "analysis_timeout",
    503,
    "Analysis took too long",
    "Try again when the service is less busy, or send a smaller volume.",
)
_NOT_FOUND = ProblemKind("not_found", 404, "Not found", "The description of the API lists every path.")
_NOT_READY = ProblemKind("not_ready", 503, "Service not ready", _RETRY)

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    errors.UploadTooLarge: ProblemKind(
        "too_large", 413, "Upload over a limit", "Send less; /v1/capabilities states every limit."
    ),
    errors.UnsupportedFormat: ProblemKind(
        "unsupported_format",
        415,
        "File format not read",
        "Send one of the formats and transfer syntaxes that /v1/capabilities lists.",
    ),
    errors.UnreadableScan: ProblemKind(
        "unreadable_scan",
        422,
        "Scan damaged or contradicting itself",
        "Export the series again; `values` name the file by its place in the request and the attribute.",
    ),
    errors.SeriesSelectionError: ProblemKind(
        "series_selection",
        422,
        "No series, or more than one, to analyse",
        "Name one of the series in `values` by the form field series_uid.",
    ),
    errors.NotChestCt: ProblemKind(
        "unsupported_series",
        422,
        "Not a chest CT that can be analysed",
        "Send an axial chest CT with slices of at most a few millimetres; `values` say what does not fit.",
    ),
    errors.IrregularSeries: ProblemKind(
        "irregular_series",
        422,
        "Slices do not form a regular volume",
        "Send the whole series. Some faults are repaired when the form field allow_repairs permits it.",
    ),
    errors.ScanError: ProblemKind(
        "unusable_scan", 422, "Scan cannot be used", "`detail` and `values` say what does not fit."
    ),
    errors.ModelError: ProblemKind(
        "model_invalid", 503, "Model cannot be used", "Tell whoever runs the service; `detail` names the fault."
    ),
    MalformedUpload: ProblemKind(
        "malformed_upload",
        400,
        "Body is not valid multipart/form-data",
        "Let an HTTP library build the body, with file parts named 'files'.",
    ),
    NotMultipart: ProblemKind(
        "unsupported_media_type",
        415,
        "Body must be multipart/form-data",
        "Send the scan as multipart/form-data, e.g. `curl -F files=@scan.zip`.",
    ),
    UploadTooSlow: ProblemKind(
        "upload_too_slow",
        408,
        "Body arrived too slowly",
        "Send the scan over a faster connection, or compressed in a zip.",
    ),
    MemoryError: ProblemKind("out_of_memory", 503, "Not enough memory", _RETRY),
    StorageFull: ProblemKind("storage_full", 503, "No room for the upload", _RETRY),
    LineFull: ProblemKind("line_full", 429, "Too many requests waiting", _RETRY),
    EmptyUpload: ProblemKind(
        "empty_upload", 422, "No file received", "Send at least one non-empty part named 'files'."
    ),
    errors.OptionError: ProblemKind(
        "invalid_option", 422, "Form field not valid", "`errors` name each field, what is wrong, and what fits."
    ),
    RequestValidationError: ProblemKind(
        "invalid_request", 422, "Request not valid", "`errors` point to each part of the request that does not fit."
    ),
    NotFound: _NOT_FOUND,
    PacsNotConfigured: _NOT_FOUND,
    NotReady: _NOT_READY,
    AnalysisTimeout: _TIMEOUT,
    JobTimeout: _TIMEOUT,
    jobs.Draining: _NOT_READY,
    jobs.UnknownJob: _NOT_FOUND,
    jobs.JobErased: ProblemKind("gone", 410, "Erased", "Send the scan again if it is needed."),
    jobs.JobConflict: ProblemKind(
        "conflict", 409, "Not in this state of the job", "`values` name the state; GET the job to see how far it is."
    ),
    jobs.IdempotencyMismatch: ProblemKind(
        "idempotency_mismatch",
        422,
        "Idempotency-Key used for something else",
        "Send another key with another scan or other options; only an exact repetition may use the same.",
    ),
    jobs.QueueFull: ProblemKind("queue_full", 429, "Too many jobs", _RETRY),
    jobs.DatabaseUnavailable: ProblemKind("database_unavailable", 503, "Database does not answer", _RETRY),
    jobs.StoreDamaged: ProblemKind(
        "store_damaged", 500, "Stored data missing or damaged", "Send the scan again; tell whoever runs the service."
    ),
    jobs.AttemptsExhausted: ProblemKind(
        "attempts_exhausted",
        500,
        "Given up after several attempts",
        "Tell whoever runs the service; then POST to the job's link `retry`.",
    ),
    LungNoduleError: ProblemKind("refused", 422, "Request refused", "`detail` says why."),
    Exception: ProblemKind(
        "internal_error",
        500,
        "Internal error",
        "Report the request id of the X-Request-ID header to whoever runs the service; the log holds the rest.",
    ),
}
"""Looked up along the exception's classes, the most derived first."""

HTTP_PROBLEMS: Mapping[int, ProblemKind] = {
    404: PROBLEMS[NotFound],
    405: ProblemKind("method_not_allowed", 405, "Method not allowed", "The Allow header lists what is."),
}
"""What the router itself refuses."""

_CLIENT_CLOSED_REQUEST = ProblemKind("client_hung_up", 499, "Client closed the connection", "")


class Problem(BaseModel):
    """Problem details as in RFC 9457."""

    type: str = Field(description="URI reference of the kind of problem; opens its section of the offline help.")
    title: str = Field(description="The kind of problem in a few words; the same for every occurrence.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="What is wrong this time and what to do; never names the patient.")
    instance: str = Field(description="This occurrence, by the id that X-Request-ID carries too.")
    code: str = Field(description="Stable identifier of the precise fault; programs branch on this.")
    values: dict[str, Any] = Field(
        default_factory=dict, description="The figures behind the detail: attributes, numbers, UIDs, limits."
    )
    errors: list[FieldFault] = Field(
        default_factory=list, description="For 422 of a malformed request: each part that does not fit."
    )


def problem_kinds() -> list[ProblemKind]:
    """Every kind a client can meet, by status, then name."""
    kinds = {kind.name: kind for kind in [*PROBLEMS.values(), *HTTP_PROBLEMS.values()]}
    return sorted(kinds.values(), key=lambda kind: (kind.status, kind.name))


def problem_response(request: Request, error: Exception) -> Response:
    """The answer to an exception; what it is and what it says come from the table and the error's own fields."""
    kind = _kind(error)
    request_id = request.scope.get("state", {}).get("request_id", "unknown")
    problem = Problem(
        type=f"{request.scope.get('root_path', '')}/problems#{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=_detail(error, kind),
        instance=f"urn:lungnodule:request:{request_id}",
        code=error.code if isinstance(error, LungNoduleError) else kind.name,
        values=error.values if isinstance(error, LungNoduleError) else {},
        errors=_faults(error),
    )
    # The edge counts and logs it.
    request.scope["problem"] = (kind, problem.code)
    return Response(
        problem.model_dump_json(fallback=str),
        status_code=kind.status,
        headers=_headers(error, kind, problem),
        media_type=MEDIA_TYPE,
    )


def stored_problem(told: Mapping[str, Any], root_path: str, job_id: str) -> tuple[ProblemKind, Problem]:
    """A job's problem, from what the ledger keeps of the error (`app.jobs.rows.told`)."""
    by_name = {cls.__name__: kind for cls, kind in PROBLEMS.items()}
    kind = next(by_name[name] for name in told["classes"] if name in by_name)
    return kind, Problem(
        type=f"{root_path}/problems#{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=told["message"],
        instance=f"urn:lungnodule:job:{job_id}",
        code=told["code"],
        values=told["values"],
    )


def stored_problem_response(request: Request, told: Mapping[str, Any], job_id: str) -> Response:
    """The answer to whoever asks for the result of a job that has none."""
    kind, problem = stored_problem(told, request.scope.get("root_path", ""), job_id)
    request.scope["problem"] = (kind, problem.code)
    headers = {"Retry-After": "30"} if kind.status in (429, 503) else {}
    return Response(problem.model_dump_json(), status_code=kind.status, headers=headers, media_type=MEDIA_TYPE)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of the answers with these statuses."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        kinds = [kind for kind in problem_kinds() if kind.status == status]
        described[status] = {
            "description": "; ".join(f"{kind.title} (`{kind.name}`)" for kind in kinds),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.name: {"summary": kind.title, "value": _example(kind)} for kind in kinds},
                }
            },
        }
        if status in (429, 503):
            described[status]["headers"] = {
                "Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}
            }
    return described


def _example(kind: ProblemKind) -> dict[str, Any]:
    problem = Problem(
        type=f"/problems#{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=kind.advice,
        instance="urn:lungnodule:request:8d1f0a5c1c3f4b5e9a3a5a2e4f6b7c8d",
        code=kind.name,
    )
    return problem.model_dump()


def _kind(error: Exception) -> ProblemKind:
    if isinstance(error, (ClientHungUp, ClientDisconnect)):
        return _CLIENT_CLOSED_REQUEST
    if isinstance(error, HTTPException):
        return HTTP_PROBLEMS.get(
            error.status_code, ProblemKind("http_error", error.status_code, "Request refused", "See the status.")
        )
    return next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)


def _detail(error: Exception, kind: ProblemKind) -> str:
    """Only our own errors speak: the text of any other may quote the file."""
    return error.message if isinstance(error, LungNoduleError) else f"{kind.title}. {kind.advice}".strip()


def _faults(error: Exception) -> list[FieldFault]:
    if isinstance(error, InvalidFields):
        return error.faults
    if isinstance(error, RequestValidationError):
        return [FieldFault(field=".".join(map(str, e["loc"])), message=e["msg"]) for e in error.errors()]
    return []


def _headers(error: Exception, kind: ProblemKind, problem: Problem) -> dict[str, str]:
    if isinstance(error, HTTPException):
        return dict(error.headers or {})
    if kind.status in (429, 503) or "retry_after_s" in problem.values:
        return {"Retry-After": str(problem.values.get("retry_after_s", 30))}
    return {}
