"""The audit trail: who did what, when, with which job. It holds nothing of a patient."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from app.api.access.desk import AccessDependency
from app.api.moments import Moment, seconds_of
from app.api.paging import cursor_of, parse_cursor
from app.api.problems import problem_responses
from app.jobs.audit_trail import AuditFilters, Entry, read_audit

router = APIRouter(tags=["access"])

_PAGE, _LONGEST_PAGE = 100, 500
Told = Annotated[str | None, Query(max_length=64, pattern=r"^[\x21-\x7e]+$")]


class AuditEntry(BaseModel):
    """One thing that was done."""

    at: datetime = Field(description="When (UTC).")
    actor: str = Field(description="key:<name>, oidc:<subject>, anonymous, service, pacs or command-line.")
    action: str = Field(description="What, e.g. job.create.")
    tenant: str | None = Field(description="Of whoever acted.")
    job_id: str | None = Field(description="The job, where there is one.")
    request_id: str | None = Field(description="As X-Request-ID had it.")
    values: dict[str, Any] = Field(description="Counts and codes.")


class AuditList(BaseModel):
    """One page."""

    entries: list[AuditEntry] = Field(description="The newest first.")
    next: str | None = Field(description="Link to the page after this one.")


@router.get("/v1/audit", summary="Who did what", responses=problem_responses(422, 503))
async def list_audit(
    request: Request,
    access: AccessDependency,
    actor: Told = None,
    action: Told = None,
    job_id: Told = None,
    after: Annotated[Moment | None, Query(description="Only later ones (RFC 3339).")] = None,
    before: Annotated[Moment | None, Query(description="Only earlier ones (RFC 3339).")] = None,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE, description="Entries on a page.")] = _PAGE,
    cursor: Annotated[str | None, Query(max_length=128, description="From the link `next`.")] = None,
) -> AuditList:
    """Of every tenant, for role operate."""
    filters = AuditFilters(actor, action, job_id, seconds_of(after), seconds_of(before))
    found = await access.run(read_audit, access.database, filters, limit + 1, parse_cursor(cursor))
    following = None
    if len(found) > limit:
        asked = request.url.include_query_params(cursor=cursor_of(found[limit - 1].at, found[limit - 1].id))
        following = f"{request.scope.get('root_path', '')}/v1/audit?{asked.query}"
    return AuditList(entries=[audit_entry(one) for one in found[:limit]], next=following)


def audit_entry(entry: Entry) -> AuditEntry:
    """As the API and the command line show it."""
    return AuditEntry(
        at=datetime.fromtimestamp(entry.at, UTC),
        actor=entry.actor,
        action=entry.action,
        tenant=entry.tenant,
        job_id=entry.job_id,
        request_id=entry.request_id,
        values=entry.values,
    )
