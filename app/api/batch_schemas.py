"""A batch as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, Field

from app.api.figures import Notice
from app.api.job_schemas import StateName
from app.api.schemas import RejectedSeries, SeriesSummary
from app.inference.findings import DISCLAIMER
from app.jobs.batches import Batch


class BatchJob(BaseModel):
    """One job of a batch."""

    id: str = Field(description="Identifier of the job.")
    state: StateName = Field(description="As in the job itself.")
    series: SeriesSummary = Field(description="What the headers of its series say.")
    answered_from: str | None = Field(description="Job whose stored answer this is; null where it is analysed anew.")
    result: str | None = Field(description="Path of the answer; null until there is one.")
    link: str = Field(description="Path of the job.")


class BatchStatus(BaseModel):
    """What became of one upload with several series."""

    id: str = Field(description="Identifier of the batch.")
    disclaimer: str = Field(description="What the answers must not be used for.")
    created_at: datetime = Field(description="When it was acknowledged (UTC).")
    finished: bool = Field(description="Whether every job has ended, in whatever way.")
    counts: dict[str, int] = Field(description="Number of jobs in each state; `erased` counts those that are gone.")
    jobs: list[BatchJob] = Field(description="A job for each series that can be analysed; erased ones are left out.")
    rejected: list[RejectedSeries] = Field(
        description="Series that became no job, and why. Nothing of them was stored."
    )
    files_received: int = Field(description="Number of files, members of a zip counted singly.")
    files_ignored: list[Notice] = Field(description="Files that are no image, and why.")
    link: str = Field(description="Path of this document.")


def batch_status(batch: Batch, root_path: str) -> BatchStatus:
    """The public form of a batch."""
    return BatchStatus(
        id=batch.id,
        disclaimer=DISCLAIMER,
        created_at=datetime.fromtimestamp(batch.created_at, UTC),
        finished=not batch.is_live,
        counts=dict(batch.counts),
        jobs=[
            BatchJob(
                id=job.id,
                state=job.state.value,
                series=SeriesSummary.model_validate(series),
                answered_from=job.answered_from,
                result=f"{root_path}/v1/jobs/{job.id}/result" if job.result else None,
                link=f"{root_path}/v1/jobs/{job.id}",
            )
            for job, series in batch.jobs
        ],
        rejected=[RejectedSeries.model_validate(one) for one in batch.left_out["rejected"]],
        files_received=batch.left_out["files_received"],
        files_ignored=[Notice.model_validate(one) for one in batch.left_out["ignored"]],
        link=f"{root_path}/v1/batches/{batch.id}",
    )
