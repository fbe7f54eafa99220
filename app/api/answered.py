"""The stored answer of a job, whole: what every view of it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from app.api.errors import NotFound
from app.api.job_desk import JobDesk
from app.api.routes.job_results import no_result
from app.inference.findings import Nodule
from app.jobs.records import Job
from app.reporting.bundle import Bundle, unpack


@dataclass(frozen=True)
class Answered:
    """A job and what it found."""

    job: Job
    bundle: Bundle

    def nodule(self, nodule_id: str) -> Nodule:
        """A nodule by its id.

        Raises
        ------
        NotFound
            ``unknown_nodule``, with the ids there are.
        """
        nodules = self.bundle.findings.nodules
        known = [nodule.id for nodule in nodules]
        if nodule_id not in known:
            raise NotFound(
                f"The answer of this job has {len(known)} nodules, and none of this id.",
                code="unknown_nodule",
                values={"available": known},
            )
        return nodules[known.index(nodule_id)]


def answered(desk: JobDesk, job_id: str) -> Answered:
    """The answer of a job; blocks.

    Raises
    ------
    UnknownJob, JobErased, JobConflict
        There is no such job, no longer, or it has no answer.
    ResultUnavailable
        ``no_outlines``: another version of the program stored less.
    """
    job = desk.jobs.lookup.job(job_id)
    if job.result is None:
        raise no_result(job)
    return Answered(job, unpack(desk.jobs.store.result(job.id, job.result)))
