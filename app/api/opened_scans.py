"""Scans that somebody looks at: read once, mapped from a file, so that slices are there at once and memory stays flat.

A scan is kept for its job, never for another: what is erased for one job is not shown through it again, whoever else
sent the same files. All bookkeeping happens on the event loop, so there is nothing to lock.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import Depends, Request
from numpy.typing import NDArray

from app.api.job_desk import JobDesk
from app.api.job_work import ordered_reading
from app.disk_faults import full_disk_refused
from app.imaging.planes import Plane, PlaneName, planes_of
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume, DicomIdentity, FloatArray, Grid
from app.jobs.records import DatabaseUnavailable, Job, JobErased, QueueFull, StoreDamaged, UnknownJob
from app.jobs.rows import Who, add_audit

_MOST_OPENING = 8
_CUTS_AT_ONCE = 4
_LOOKS_PER_IDLE_TIME = 8
_LONGEST_PAUSE_S = 15.0


@dataclass(frozen=True)
class OpenedScan:
    """A scan that can be cut.

    Parameters
    ----------
    hu
        int16 (z, y, x), mapped from ``path``, read only.
    grid, identity
        As `app.imaging.volume.CtVolume` has them.
    hu_range
        Lowest and highest value.
    made
        What was made of it and is asked for again, by name.
    seen_by
        Actors of the audit trail who were shown it since it was opened.
    """

    hu: NDArray[np.int16]
    grid: Grid
    identity: DicomIdentity | None
    hu_range: tuple[int, int]
    path: Path
    made: dict[str, bytes] = field(default_factory=dict)
    seen_by: set[str] = field(default_factory=set)

    @property
    def planes(self) -> dict[PlaneName, Plane]:
        """Axial, coronal, sagittal."""
        return planes_of(self.grid)

    @property
    def slice_normal(self) -> FloatArray:
        """(3,) unit vector in LPS across the slices, towards the head, else the back, else the left."""
        normal = np.cross(self.grid.affine[:3, 1], self.grid.affine[:3, 2])
        largest = normal[np.abs(normal).argmax()]
        return np.asarray(normal / np.linalg.norm(normal) * np.sign(largest))

    @property
    def volume(self) -> CtVolume:
        """The scan as the imaging functions take it; nothing is copied."""
        return CtVolume(self.hu, self.grid, self.identity)


class OpenedScans:
    """The scans that are open in this process, the least recently used first.

    Parameters
    ----------
    desk
        Of the jobs.
    folder
        Of this process; it goes with the process.
    """

    def __init__(self, desk: JobDesk, folder: Path) -> None:
        self._desk = desk
        self._folder = folder
        self._opened: dict[str, tuple[OpenedScan, float]] = {}
        self._opening: dict[str, asyncio.Task[OpenedScan]] = {}
        # The whole scan is in memory while it is opened: one at a time.
        self._turn = asyncio.Semaphore(1)
        self.cutting = asyncio.Semaphore(_CUTS_AT_ONCE)
        """Holds a permit for each slab or picture that may be cut at the same time."""

    @property
    def job_ids(self) -> list[str]:
        """Whose scans are open."""
        return list(self._opened)

    async def look(self, request: Request, job_id: str) -> OpenedScan:
        """As `scan`, for somebody who is shown it: noted for the audit trail once for each opening and actor."""
        _, scan = await self.scan(job_id)
        who = self._desk.who(request)
        if who.actor not in scan.seen_by:
            scan.seen_by.add(who.actor)
            await self._desk.run(_note_look, self._desk, who, job_id)
        return scan

    async def scan(self, job_id: str) -> tuple[Job, OpenedScan]:
        """The job, and its scan, opened if need be; whoever asks meanwhile waits for the same opening.

        Raises
        ------
        UnknownJob, JobErased
            Whatever may still be open.
        QueueFull
            ``openings_full``: as many scans are being opened as may.
        ScanError, StoreDamaged, StorageFull
            It cannot be read, is gone, or there is no room.
        """
        try:
            job = await self._desk.run(self._desk.jobs.lookup.job, job_id)
        except (JobErased, UnknownJob):
            self.forget(job_id)
            raise
        if job_id in self._opened:
            scan, _ = self._opened.pop(job_id)
            self._opened[job_id] = scan, time.monotonic()
            return job, scan
        opening = self._opening.get(job_id) or self._begin(job)
        # Who hangs up does not take it away from the others.
        return job, await asyncio.shield(opening)

    def forget(self, job_id: str) -> None:
        """Close the scan of a job, where it is open."""
        if job_id in self._opened:
            self._opened.pop(job_id)[0].path.unlink(missing_ok=True)

    def forget_idle(self) -> None:
        """Close what nobody has asked for in a while."""
        before = time.monotonic() - self._desk.settings.opened_scans_idle_s
        for job_id in [job_id for job_id, (_, used_at) in self._opened.items() if used_at < before]:
            self.forget(job_id)

    async def forget_erased(self) -> None:
        """Close what was erased elsewhere: by another process, or by age."""
        for job_id in self.job_ids:
            try:
                await self._desk.run(self._desk.jobs.lookup.job, job_id)
            except (JobErased, UnknownJob):
                self.forget(job_id)

    async def close(self) -> None:
        """Let running openings end and close everything."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for job_id in self.job_ids:
            self.forget(job_id)

    def _begin(self, job: Job) -> asyncio.Task[OpenedScan]:
        self._desk.refuse_when_draining()
        if len(self._opening) >= _MOST_OPENING:
            raise QueueFull(
                f"{_MOST_OPENING} scans are being opened, as many as may at once. Try again in 2 s.",
                code="openings_full",
                values={"limit": _MOST_OPENING, "retry_after_s": 2},
            )
        opening = asyncio.create_task(self._open(job))
        self._opening[job.id] = opening
        opening.add_done_callback(partial(self._ended, job.id))
        return opening

    def _ended(self, job_id: str, opening: asyncio.Task[OpenedScan]) -> None:
        del self._opening[job_id]
        if not opening.cancelled():
            opening.exception()  # looked at, though all who waited may be gone

    async def _open(self, job: Job) -> OpenedScan:
        async with self._turn:
            scan = await self._desk.run_long(_opened, self._desk, job, self._folder)
        self._opened[job.id] = scan, time.monotonic()
        self._make_room(job.id)
        try:
            # It may have been erased while it was read.
            await self._desk.run(self._desk.jobs.lookup.job, job.id)
        except BaseException:
            self.forget(job.id)
            raise
        return scan

    def _make_room(self, newest: str) -> None:
        """The newest stays even where it is too large by itself: it was asked for."""
        kept = sum(scan.hu.nbytes for scan, _ in self._opened.values())
        for job_id, (scan, _) in list(self._opened.items()):
            if kept > self._desk.settings.opened_scans_bytes and job_id != newest:
                kept -= scan.hu.nbytes
                self.forget(job_id)


@asynccontextmanager
async def opened_scans(desk: JobDesk, folder: Path) -> AsyncIterator[OpenedScans]:
    """The opened scans of an app, swept while it runs, gone when it ends."""
    scans = OpenedScans(desk, folder)
    pause_s = min(_LONGEST_PAUSE_S, desk.settings.opened_scans_idle_s / _LOOKS_PER_IDLE_TIME)

    async def sweep() -> None:
        while True:
            await asyncio.sleep(pause_s)
            scans.forget_idle()
            with suppress(DatabaseUnavailable):  # then every request says so, too
                await scans.forget_erased()

    sweeping = asyncio.create_task(sweep())
    try:
        yield scans
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping
        await scans.close()


def _note_look(desk: JobDesk, who: Who, job_id: str) -> None:
    with desk.jobs.database.transaction() as connection:
        add_audit(connection, desk.jobs.database.now(connection), who, "job.volume", job_id)


def _opened(desk: JobDesk, job: Job, folder: Path) -> OpenedScan:
    if job.scan_id is None:
        raise StoreDamaged("The stored scan is gone.", code="scan_missing")
    with desk.jobs.store.scan(job.scan_id) as files, full_disk_refused():
        volume, _ = read_ct(files, ordered_reading(desk.settings, job.order, folder))
        return mapped(volume, folder / f"opened-{uuid.uuid4().hex}.int16")


def mapped(volume: CtVolume, path: Path) -> OpenedScan:
    """Write the voxels to a file and map it."""
    try:
        volume.hu.tofile(path)
        hu = np.memmap(path, np.int16, "r", shape=volume.grid.shape_zyx)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return OpenedScan(hu, volume.grid, volume.identity, (int(volume.hu.min()), int(volume.hu.max())), path)


def get_scans(request: Request) -> OpenedScans:
    """FastAPI dependency."""
    scans: OpenedScans = request.app.state.scans
    return scans


ScansDependency = Annotated[OpenedScans, Depends(get_scans)]
