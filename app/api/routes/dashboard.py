"""How the installation does."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query

from app.api.dashboard_schemas import Dashboard, dashboard_of
from app.api.job_desk import DeskDependency, JobDesk
from app.api.problems import problem_responses
from app.jobs.census import take_census
from app.jobs.overview import take_overview

router = APIRouter(tags=["operations"])


@router.get("/v1/dashboard", summary="The installation in numbers", responses=problem_responses(422, 503))
async def show_dashboard(
    desk: DeskDependency, days: Annotated[int, Query(ge=1, le=366, description="How far to look back.")] = 30
) -> Dashboard:
    """Jobs by day, seconds by stage, refusals, models, the distribution of findings, workers, queue and disk.

    From the database; numbers only. What was erased counts nowhere.
    """
    return await desk.run_long(_dashboard, desk, days)


def _dashboard(desk: JobDesk, days: int) -> Dashboard:
    settings = desk.settings
    disk = {
        "free_bytes": _free_bytes(settings.data_dir.absolute()),
        "temp_free_bytes": _free_bytes(settings.temp_dir or Path(tempfile.gettempdir())),
    }
    census = take_census(desk.jobs.database, settings.worker_lease_s)
    return dashboard_of(days, census, take_overview(desk.jobs.database, days), disk)


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
