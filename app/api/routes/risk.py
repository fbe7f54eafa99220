"""POST /v1/risk: risk and guidelines for nodules that are told; nothing is analysed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.problems import problem_responses
from app.api.small_body import SmallBodyRoute
from app.reporting.assessment import Assessment, RiskRequest, assess
from app.reporting.risk_examples import RISK_EXAMPLES

router = APIRouter(tags=["analysis"], route_class=SmallBodyRoute)


@router.post(
    "/v1/risk",
    summary="Risk and guidelines for given nodules",
    response_description="Brock, growth, Lung-RADS, Fleischner and BTS, each with its inputs and what it lacked.",
    responses=problem_responses(400, 408, 413, 422),
)
def assess_nodules(
    request: Annotated[
        RiskRequest,
        Body(openapi_examples={name: {"summary": text, "value": told} for name, (text, told) in RISK_EXAMPLES.items()}),
    ],
) -> Assessment:
    """Brock (PanCan) probability, volume doubling time, Lung-RADS v2022, Fleischner 2017 and BTS 2015, without a scan.

    Everything but the nodules may be left out. What is missing is listed, never invented: where a category or a
    probability needs it, the answer says that it cannot be assigned. Nothing is kept.
    """
    return assess(request)
