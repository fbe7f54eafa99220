"""The scan of an earlier job, for one that is compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.jobs.lookup import Lookup
from app.jobs.ownership import tenant_of_job
from app.jobs.records import Job, JobErased, Order, StoreDamaged, UnknownJob
from app.jobs.store import Store


@dataclass(frozen=True)
class PriorScan:
    """Files of the prior, and the order that says which of their series was meant."""

    files: tuple[InputFile, ...]
    order: Order


FindPrior = Callable[[str], AbstractContextManager[PriorScan]]
"""From the id of a job to its scan."""


def present_prior(lookup: Lookup, job_id: str, tenant: str | None = None) -> Job:
    """A job whose scan is still stored.

    Parameters
    ----------
    lookup
        Of the ledger.
    job_id
        As the caller names it.
    tenant
        Whose it must be; another's is unknown. None asks nothing.

    Raises
    ------
    OptionError
        ``unknown_prior``, or ``prior_erased``: also what a job says whose prior was erased while it waited.
    """
    unknown = OptionError("prior names no job. Give the id of an earlier one.", code="unknown_prior")
    if tenant is not None and tenant_of_job(lookup.database, job_id) != tenant:
        raise unknown
    try:
        job = lookup.job(job_id)
    except UnknownJob:
        raise unknown from None
    except JobErased:
        job = None
    if job is None or job.scan_id is None:
        raise OptionError(
            "The scan of the job that prior names was erased. Send it again, and name the new job.",
            code="prior_erased",
        )
    return job


@contextmanager
def stored_prior(lookup: Lookup, store: Store, job_id: str) -> Iterator[PriorScan]:
    """The stored scan of a job, until the context ends.

    Raises
    ------
    OptionError
        See `present_prior`.
    StoreDamaged
        Its files are gone though it was not erased.
    """
    job = present_prior(lookup, job_id)
    with ExitStack() as stack:
        try:
            files = stack.enter_context(store.scan(job.scan_id or ""))
        except StoreDamaged:
            present_prior(lookup, job_id)  # erased at this moment
            raise
        yield PriorScan(tuple(files), job.order)
