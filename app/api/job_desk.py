"""What the handlers of jobs share. Blocking work runs in threads of its own, so that it never waits behind uploads."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from app.api.access.desk import identity_of
from app.jobs.installation import Jobs
from app.jobs.records import Draining, QueueFull
from app.jobs.rows import Who
from app.settings import Settings
from app.upload_folders import process_folder, request_folder

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_THREADS = 8
_READERS = 2
_ACTOR = re.compile(r"[A-Za-z0-9._@-]{1,64}")


@dataclass(frozen=True)
class JobDesk:
    """Made once, by the app factory.

    Parameters
    ----------
    jobs
        Of the installation.
    threads
        For what blocks.
    readers
        For what blocks for long, so that it does not hold up a status.
    uploads
        Holds one permit for each upload that may be received.
    incoming
        Where each upload gets a folder of its own, beside the store.
    draining
        Set when the process is to end.
    rendering
        Holds one permit: a form of a result takes the memory of a whole scan while it is made.
    """

    jobs: Jobs
    threads: ThreadPoolExecutor
    readers: ThreadPoolExecutor
    uploads: asyncio.Semaphore
    incoming: Path
    draining: threading.Event
    rendering: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    @property
    def settings(self) -> Settings:
        """Of the installation."""
        return self.jobs.settings

    async def run(self, call: Callable[Arguments, Result], *args: Arguments.args, **named: Arguments.kwargs) -> Result:
        """Run what blocks outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(call, *args, **named))

    async def run_long(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Run what blocks for long, a few at a time."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, partial(call, *args, **named))

    def refuse_when_draining(self) -> None:
        """Take no new work while the process ends.

        Raises
        ------
        Draining
            It ends.
        """
        if self.draining.is_set():
            raise Draining("The service is stopping and takes no new work. Try again.", values={"retry_after_s": 5})

    @asynccontextmanager
    async def upload_folder(self) -> AsyncIterator[Path]:
        """A permit and a folder for one upload; what is left in the folder is removed.

        Raises
        ------
        QueueFull
            ``uploads_full``: as many uploads are being received as may.
        """
        if self.uploads.locked():
            limit = self.settings.max_job_uploads
            raise QueueFull(
                f"{limit} uploads are being received, as many as may at once. Try again in 5 s.",
                code="uploads_full",
                values={"limit": limit, "retry_after_s": 5},
            )
        async with self.uploads, request_folder(self.incoming) as folder:
            yield folder

    def who(self, request: Request) -> Who:
        """Who calls; where nobody has to say so, whom the proxy names, if the settings say in which header."""
        request_id = request.scope.get("state", {}).get("request_id")
        if (identity := identity_of(request)).name is not None:
            return Who(identity.actor, request_id, identity.tenant)
        header = self.settings.actor_header
        named = request.headers.get(header, "") if header else "anonymous"
        actor = named if _ACTOR.fullmatch(named) else "unnamed"
        return Who(actor, request_id)

    def sending_tenant(self, request: Request) -> str | None:
        """Whose what a PACS stores is; None is the tenant of the PACS, as for what comes by other ways than HTTP."""
        identity = identity_of(request)
        is_own = identity.name is None or identity.tenant == self.settings.pacs_tenant
        return None if is_own else identity.tenant


@contextmanager
def open_desk(jobs: Jobs, draining: threading.Event) -> Iterator[JobDesk]:
    """The desk, for as long as the app runs."""
    with (
        process_folder(jobs.store.incoming) as incoming,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="jobs") as threads,
        ThreadPoolExecutor(_READERS, thread_name_prefix="batches") as readers,
    ):
        yield JobDesk(jobs, threads, readers, asyncio.Semaphore(jobs.settings.max_job_uploads), incoming, draining)


def get_desk(request: Request) -> JobDesk:
    """FastAPI dependency."""
    desk: JobDesk = request.app.state.desk
    return desk


DeskDependency = Annotated[JobDesk, Depends(get_desk)]
