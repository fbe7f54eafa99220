"""The results of a job on their way to a PACS."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.job_desk import DeskDependency
from app.api.pacs_desk import PacsDependency
from app.api.problems import problem_responses
from app.api.small_body import SmallBodyRoute
from app.imaging.errors import OptionError
from app.inference.findings import DISCLAIMER
from app.pacs.config import Kind
from app.pacs.returns import Return

router = APIRouter(tags=["pacs"], route_class=SmallBodyRoute)


class ReturnRequest(BaseModel):
    """What is to be sent where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[str, Field(max_length=64)] = Field(description="Name of a PACS of the configuration.")
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1, max_length=6)] = Field(
        description="Objects, each as under the job's results."
    )


class ReturnStatus(BaseModel):
    """How far the results are on their way to one PACS."""

    target: str = Field(description="Name of the PACS in the configuration.")
    kinds: list[str] = Field(description="Objects that are sent.")
    state: str = Field(
        description="waiting (for the job's end, or to be tried again), sent (every object is confirmed), given_up, or "
        "void (the job has ended without a result)."
    )
    tries: int = Field(description="How often it was tried.")
    objects_confirmed: int = Field(description="Objects that the PACS has said are stored.")
    last_answer: str | None = Field(description="stored, or the code of what went wrong the last time.")
    sent_at: datetime | None = Field(description="When the last object was confirmed (UTC).")


class ReturnList(BaseModel):
    """Every PACS that is to get the results of a job."""

    job_id: str = Field(description="The job.")
    disclaimer: str = Field(description="What the results must not be used for.")
    returns: list[ReturnStatus] = Field(description="By name of the PACS.")


@router.get(
    "/v1/jobs/{job_id}/pacs", summary="Results on their way to a PACS", responses=problem_responses(404, 410, 503)
)
async def show_returns(job_id: str, desk: DeskDependency, pacs: PacsDependency) -> ReturnList:
    """What is sent where, how often it was tried, and what the PACS said last."""
    await desk.run(desk.jobs.lookup.job, job_id)
    return _listed(job_id, await desk.run(pacs.returns.of_job, job_id))


@router.post(
    "/v1/jobs/{job_id}/pacs",
    status_code=202,
    summary="Send the results to a PACS",
    responses=problem_responses(400, 404, 408, 410, 413, 422, 503),
)
async def send_results(
    job_id: str, asked: ReturnRequest, request: Request, desk: DeskDependency, pacs: PacsDependency
) -> ReturnList:
    """Once the job has succeeded; also a second time. The PACS is named, never addressed."""
    if asked.target not in pacs.config.targets:
        available = sorted(pacs.config.targets)
        raise OptionError(
            f"target names no configured PACS; there are {', '.join(available) or 'none'}.",
            code="unknown_target",
            values={"available": available},
        )
    await desk.run(pacs.returns.ask, job_id, asked.target, asked.kinds, desk.who(request))
    return _listed(job_id, await desk.run(pacs.returns.of_job, job_id))


def _listed(job_id: str, returns: list[Return]) -> ReturnList:
    return ReturnList(
        job_id=job_id,
        disclaimer=DISCLAIMER,
        returns=[
            ReturnStatus(
                target=each.target,
                kinds=list(each.kinds),
                state=each.state,
                tries=each.tries,
                objects_confirmed=each.objects_confirmed,
                last_answer=each.last_answer,
                sent_at=None if each.sent_at is None else datetime.fromtimestamp(each.sent_at, UTC),
            )
            for each in returns
        ],
    )
