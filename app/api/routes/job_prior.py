"""The earlier scan that an answer was compared with, for showing both side by side."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.answered import answered
from app.api.comparison_schemas import LoneNodule, NoduleGrowth, comparison_of
from app.api.errors import NotFound
from app.api.figures import Millimetres
from app.api.job_desk import DeskDependency, JobDesk
from app.api.problems import problem_responses
from app.jobs.records import JobErased, UnknownJob
from app.reporting.compared import ComparedFindings

router = APIRouter(tags=["workspace"])


class PriorMatch(BaseModel):
    """One nodule in both scans."""

    current: str = Field(description="Id in this answer.")
    prior: str = Field(description="Id among `comparison.prior_nodules` of this answer.")
    growth: NoduleGrowth = Field(description="What changed.")


class PriorLink(BaseModel):
    """How the current scan lies over the earlier one."""

    job_id: str = Field(description="The job of the earlier scan: its volume shows it.")
    available: bool = Field(description="Whether that job still has its scan.")
    days_between: int | None = Field(description="From the prior to the current scan; null without both dates.")
    current_to_prior_lps: list[list[float]] | None = Field(
        description="4x4 matrix from patient LPS mm (x, y, z, 1) of the current scan to those of the prior: the affine "
        "nearest to the registration. Null where the scans could not be laid over each other, or where the answer was "
        "stored before it was kept."
    )
    residual_mm: Millimetres | None = Field(
        description="The distance from the registration that 90 % of the lung stay within, in mm. The registration "
        "has an error of its own, in `comparison.registration`."
    )
    matches: list[PriorMatch] = Field(description="Nodules of both scans.")
    only_current: list[LoneNodule] = Field(description="Nodules that only the current scan reports.")
    only_prior: list[LoneNodule] = Field(description="Nodules that only the earlier one reports.")


@router.get(
    "/v1/jobs/{job_id}/prior",
    summary="The earlier scan beside this one",
    responses=problem_responses(404, 409, 410, 500, 503),
)
async def show_prior(job_id: str, desk: DeskDependency) -> PriorLink:
    """Which job holds the earlier scan, the matrix between both, the matched nodules. 404 `no_prior` without one."""
    return await desk.run(_prior, desk, job_id)


def _prior(desk: JobDesk, job_id: str) -> PriorLink:
    found = answered(desk, job_id)
    findings, prior = found.bundle.findings, found.job.order.prior
    told = comparison_of(findings)
    if prior is None or told is None or not isinstance(findings, ComparedFindings) or findings.comparison is None:
        raise NotFound("This scan was not compared with an earlier one.", code="no_prior")
    between = findings.comparison.to_prior
    return PriorLink(
        job_id=prior,
        available=_has_scan(desk, prior),
        days_between=told.days_between,
        current_to_prior_lps=None if between is None else [list(row) for row in between.affine],
        residual_mm=None if between is None else between.residual_mm,
        matches=[PriorMatch(current=one.current_id, prior=one.prior_id, growth=one.growth) for one in told.matched],
        only_current=list(told.only_current),
        only_prior=list(told.only_prior),
    )


def _has_scan(desk: JobDesk, job_id: str) -> bool:
    try:
        return desk.jobs.lookup.job(job_id).scan_id is not None
    except (UnknownJob, JobErased):
        return False
