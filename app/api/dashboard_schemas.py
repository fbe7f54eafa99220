"""How the installation does, in numbers; nothing in it belongs to a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from pydantic import BaseModel, Field

from app.jobs.census import Census
from app.jobs.overview import DAY_S, Overview
from app.jobs.records import FINISHED, State

_MOST_NODULES = 20
_DIAMETER_EDGES_MM = (0.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 100.0)
_PROBABILITY_EDGES = tuple(round(0.1 * n, 1) for n in range(11))


class JobFigures(BaseModel):
    """Jobs by how they stand."""

    by_state: dict[str, int] = Field(description="All that are kept, now.")
    per_day: list[dict[str, int | str]] = Field(
        description="For each day (UTC), oldest first: `day`, and how many jobs ended `succeeded`, `failed`, `parked`, "
        "`cancelled`."
    )
    per_hour_now: int = Field(description="Jobs that were answered within the last hour.")


class StageFigures(BaseModel):
    """Seconds of one stage over the newest analyses."""

    median: float = Field(description="Half of them took less, in s.")
    p90: float = Field(description="90 % of them took less, in s.")
    n: int = Field(description="Analyses that had the stage.")


class ModelCount(BaseModel):
    """Answers of one model."""

    model: str = Field(description="name:version.")
    name: str = Field(description="Its name.")
    version: str = Field(description="Its version.")
    n: int = Field(description="Answered jobs.")


class Histogram(BaseModel):
    """Counts between edges; the last bin holds its upper edge, and what lies beyond."""

    edges: list[float] = Field(description="One more than there are counts.")
    counts: list[int] = Field(description="Nodules from each edge up to the next.")


class FindingFigures(BaseModel):
    """What was found in the newest analysed scans; a job that was answered from another is not counted again."""

    scans: int = Field(description="Analysed scans, at most 2000.")
    nodules_per_scan: list[int] = Field(
        description=f"How many scans had 0, 1, 2, ... nodules; the last, the {_MOST_NODULES + 1}th, as many or more."
    )
    diameter_mm_histogram: Histogram = Field(description="Of the mean diameters, in mm.")
    probability_histogram: Histogram = Field(description="Of the probabilities of being a nodule.")
    malignancy_histogram: Histogram = Field(description="Of the probabilities of malignancy.")


class Dashboard(BaseModel):
    """The installation at a glance."""

    days: int = Field(description="How far it looks back.")
    jobs: JobFigures = Field(description="How many jobs there are and were.")
    stages_s: dict[str, StageFigures] = Field(
        description="Seconds (s) by stage of the analysis, over at most 2000 jobs."
    )
    refusals: dict[str, int] = Field(description="Attempts that ended without an answer, by code.")
    models: list[ModelCount] = Field(description="The most used first.")
    findings: FindingFigures = Field(description="Distribution of the findings.")
    workers: dict[str, int] = Field(description="`alive`: with a fresh heartbeat; `places`: jobs they can work on.")
    queue: dict[str, float] = Field(description="`waiting` jobs, `running` jobs, `oldest_waiting_s`.")
    disk: dict[str, int | None] = Field(
        description="`scans_bytes` and `results_bytes` kept; `free_bytes` of the data folder, `temp_free_bytes`."
    )


def dashboard_of(days: int, census: Census, overview: Overview, disk: Mapping[str, int | None]) -> Dashboard:
    """The public form."""
    return Dashboard(
        days=days,
        jobs=JobFigures(
            by_state={state.value: count for state, count in census.jobs.items()},
            per_day=_per_day(days, overview),
            per_hour_now=overview.last_hour,
        ),
        stages_s=_stages(overview.stages_s),
        refusals=dict(overview.refusals),
        models=[
            ModelCount(model=model, name=model.partition(":")[0], version=model.partition(":")[2], n=count)
            for model, count in overview.models.items()
        ],
        findings=_findings(overview),
        workers={"alive": census.workers, "places": census.places},
        queue={
            "waiting": census.jobs.get(State.QUEUED, 0),
            "running": census.jobs.get(State.RUNNING, 0),
            "oldest_waiting_s": round(census.oldest_waiting_s, 1),
        },
        disk={"scans_bytes": census.scan_bytes, "results_bytes": census.result_bytes, **disk},
    )


def _per_day(days: int, overview: Overview) -> list[dict[str, int | str]]:
    today = int(overview.at // DAY_S)
    told: list[dict[str, int | str]] = []
    for number in range(today - days + 1, today + 1):
        ended = overview.per_day.get(number, {})
        day = datetime.fromtimestamp(number * DAY_S, UTC).date().isoformat()
        told.append({"day": day, **{state.value: ended.get(state, 0) for state in FINISHED}})
    return told


def _stages(seconds: Sequence[Mapping[str, float]]) -> dict[str, StageFigures]:
    names = dict.fromkeys(stage for one in seconds for stage in one)
    told = {}
    for name in names:
        values = np.array([one[name] for one in seconds if name in one])
        median, p90 = np.quantile(values, (0.5, 0.9))
        told[name] = StageFigures(median=round(float(median), 4), p90=round(float(p90), 4), n=len(values))
    return told


def _findings(overview: Overview) -> FindingFigures:
    counts = [min(len(found), _MOST_NODULES) for found in overview.nodules]
    figures = np.array([one for found in overview.nodules for one in found], np.float64).reshape(-1, 3)
    return FindingFigures(
        scans=len(counts),
        nodules_per_scan=np.bincount(np.array(counts, np.intp)).tolist() if counts else [],
        diameter_mm_histogram=_histogram(figures[:, 0], _DIAMETER_EDGES_MM),
        probability_histogram=_histogram(figures[:, 1], _PROBABILITY_EDGES),
        malignancy_histogram=_histogram(figures[:, 2], _PROBABILITY_EDGES),
    )


def _histogram(values: np.ndarray[tuple[int], np.dtype[np.float64]], edges: Sequence[float]) -> Histogram:
    told = values[~np.isnan(values)]  # a model may judge no malignancy
    counts, _ = np.histogram(np.clip(told, edges[0], edges[-1]), edges)
    return Histogram(edges=list(edges), counts=counts.tolist())
