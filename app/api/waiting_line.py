"""One analysis at a time on each device, and a bounded line behind it."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from app.imaging.errors import LungNoduleError

Result = TypeVar("Result")

_FIRST_GUESS_S = 5.0
"""Seconds of one analysis before one has been measured."""
_WEIGHT_OF_LAST = 0.3


class LineFull(LungNoduleError):
    """Every place is taken."""

    default_code = "line_full"


class ClientHungUp(Exception):
    """The client closed the connection; there is nobody to answer."""


class WaitingLine:
    """Places for requests from their first byte to their answer, and turns on the device.

    A place is taken before the body is read: whoever is admitted is served, no upload is made in vain, and the disk
    holds at most ``devices + max_waiting`` uploads.

    Parameters
    ----------
    max_waiting
        Places beside the ones that are being analysed.
    devices
        Analyses at the same time.
    """

    def __init__(self, max_waiting: int, devices: int = 1) -> None:
        self.capacity = devices + max_waiting
        self.admitted = 0
        self.waiting = 0
        self._devices = anyio.Semaphore(devices)
        self._typical_s = _FIRST_GUESS_S

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place.

        Raises
        ------
        LineFull
            With the seconds after which trying again makes sense.
        """
        if self.admitted >= self.capacity:
            retry_after_s = math.ceil(self._typical_s * max(1, self.waiting))
            raise LineFull(
                f"All {self.capacity} places are taken. Try again in {retry_after_s} s.",
                values={"places": self.capacity, "retry_after_s": retry_after_s},
            )
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def run(self, work: Callable[[threading.Event], Result], receive: Receive) -> tuple[Result, float]:
        """Wait for a turn and run blocking work in a thread.

        Parameters
        ----------
        work
            Called with an event that is set when the client hangs up; it may stop then by raising `ClientHungUp`.
            It is waited for in any case: until it ends, the device is not free.
        receive
            The request's ASGI ``receive``, its body read to the end: all that can still come is the hang-up.

        Returns
        -------
        result, waited_s
            What the work returned, and the seconds before its turn.

        Raises
        ------
        ClientHungUp
            In the line, or during the work.
        """
        clock = asyncio.get_running_loop().time
        arrived = clock()
        abandoned = threading.Event()
        with anyio.CancelScope() as scope:
            watcher = asyncio.create_task(_on_hang_up(receive, abandoned, scope))
            try:
                async with self._turn():
                    started = clock()
                    result = await anyio.to_thread.run_sync(work, abandoned)
                    self._typical_s += _WEIGHT_OF_LAST * (clock() - started - self._typical_s)
            finally:
                watcher.cancel()
        if abandoned.is_set():
            raise ClientHungUp
        return result, started - arrived

    @contextmanager
    def turn_of_a_thread(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Hold the device from a thread beside the event loop; whoever came first is first."""
        asyncio.run_coroutine_threadsafe(self._devices.acquire(), loop).result()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(self._devices.release)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            await self._devices.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._devices.release()


async def _on_hang_up(receive: Receive, abandoned: threading.Event, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    abandoned.set()
    scope.cancel()
