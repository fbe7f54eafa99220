"""Errors as RFC 9457 problem details: one table from exception to status.

The ``type`` is the kind of problem, one for each row, and resolves to its section of the page that the service itself
serves. The ``code`` may say more precisely what is wrong; both are part of the public API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from app.api.access.errors import NotAuthenticated
from app.api.errors import FieldFault, InvalidFields
from app.api.problem_kinds import CLIENT_CLOSED_REQUEST, CONNECTION_PROBLEMS, HTTP_PROBLEMS, PROBLEMS, ProblemKind
from app.api.waiting_line import ClientHungUp
from app.imaging.errors import LungNoduleError

MEDIA_TYPE = "application/problem+json"


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
    kinds = {kind.name: kind for kind in [*PROBLEMS.values(), *HTTP_PROBLEMS.values(), *CONNECTION_PROBLEMS.values()]}
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
        headers=_headers(error, kind, problem) | _allowed(request, kind),
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
        return CLIENT_CLOSED_REQUEST
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
    if isinstance(error, NotAuthenticated):
        told = "" if error.code == NotAuthenticated.default_code else ', error="invalid_token"'
        return {"WWW-Authenticate": f'Bearer realm="lungnodule"{told}'}
    if kind.status in (429, 503) or "retry_after_s" in problem.values:
        return {"Retry-After": str(problem.values.get("retry_after_s", 30))}
    return {}


def _allowed(request: Request, kind: ProblemKind) -> dict[str, str]:
    """The methods of a path whose routes are several: the router tells those of the first it meets."""
    if kind.status != 405:
        return {}
    routes = request.app.routes
    methods = [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return {"Allow": ", ".join(methods)} if methods else {}
