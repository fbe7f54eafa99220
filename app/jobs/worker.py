"""A worker: takes tickets, keeps its heartbeat, recovers what others left, delivers webhooks, keeps retention."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from app.imaging.errors import LungNoduleError
from app.jobs.erasure import Eraser
from app.jobs.leases import Leases, Living
from app.jobs.queue import JobQueue
from app.jobs.rows import new_id
from app.jobs.runner import Runner
from app.jobs.webhooks import Deliveries
from app.logs import described

_ROUND_S = 1.0
_RETENTION_EVERY_S = 60.0
_STOP_MARGIN_S = 5.0


@dataclass(frozen=True)
class Chores:
    """What is to be done beside the jobs."""

    leases: Leases
    deliveries: Deliveries
    eraser: Eraser


class Worker:
    """One in a process. `running_worker` makes it.

    Parameters
    ----------
    worker_id
        New at each start.
    runner, queue, chores
        Of the installation.
    """

    def __init__(self, worker_id: str, runner: Runner, queue: JobQueue, chores: Chores) -> None:
        self.id = worker_id
        self._runner = runner
        self._queue = queue
        self._chores = chores
        self._me = Living(worker_id, lambda: runner.working_on)
        self._ended = threading.Event()
        self._beaten_at = time.monotonic()
        self._beats = threading.Thread(target=self._beat, name="worker-heartbeat", daemon=True)
        self._rounds = threading.Thread(target=self._make_rounds, name="worker-chores", daemon=True)

    def start(self, slot: str, concurrency: int) -> None:
        """Recover first, then take tickets."""
        self._chores.leases.enrol(self.id, slot, concurrency)
        self._chores.leases.recover(self._me)
        self._queue.consume(self._runner, self.id, concurrency)
        self._beats.start()
        self._rounds.start()

    @property
    def is_alive(self) -> bool:
        """Whether its threads run: a worker without them would hold its jobs for ever."""
        return self._beats.is_alive() and self._rounds.is_alive()

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since it was last written down as alive, by this process' own clock."""
        return time.monotonic() - self._beaten_at

    def stop(self, patience_s: float) -> None:
        """Take no more tickets; give running jobs so long, then hand them back."""
        impatience = threading.Timer(patience_s, self._runner.interrupting.set)
        impatience.daemon = True
        impatience.start()
        # The engine looks once a second whether all is done; an idle worker need not wait for that.
        self._queue.stop(patience_s + _STOP_MARGIN_S if self._runner.working_on else 0.0)
        impatience.cancel()
        self._ended.set()
        for thread in (self._beats, self._rounds):
            thread.join(timeout=_STOP_MARGIN_S)
        with _told("leave"):
            self._chores.leases.leave(self.id)

    def _beat(self) -> None:
        """In a thread of its own: a slow webhook must not look like death."""
        while not self._ended.wait(min(self._chores.leases.lease_s / 4, 5.0)):
            with _told("heartbeat"):
                self._chores.leases.beat(self.id)
                self._beaten_at = time.monotonic()

    def _make_rounds(self) -> None:
        next_recovery = next_retention = time.monotonic()
        while not self._ended.wait(min(_ROUND_S, self._chores.leases.lease_s / 4)):
            now = time.monotonic()
            if now >= next_recovery:
                next_recovery = now + self._chores.leases.lease_s / 3
                with _told("recovery"):
                    recovered = self._chores.leases.recover(self._me)
                    if recovered:
                        structlog.get_logger(__name__).warning("jobs recovered", jobs=recovered)
            with _told("webhooks"):
                self._chores.deliveries.send_due()
            if now >= next_retention:
                next_retention = now + _RETENTION_EVERY_S
                with _told("retention"):
                    self._chores.eraser.retain()
                    self._chores.eraser.sweep()


@contextmanager
def running_worker(
    make_runner: Callable[[str], Runner],
    queue: JobQueue,
    chores: Chores,
    slot: str,
    concurrency: int,
    patience_s: float,
) -> Iterator[Worker]:
    """A worker in this process, in a slot that the caller holds, stopped in order at the end."""
    with ExitStack() as stack:
        worker_id = new_id()
        worker = Worker(worker_id, make_runner(worker_id), queue, chores)
        worker.start(slot, concurrency)
        structlog.get_logger(__name__).info("worker started", worker=worker_id, slot=slot, concurrency=concurrency)
        stack.callback(lambda: worker.stop(patience_s))
        yield worker


@contextmanager
def _told(what: str) -> Iterator[None]:
    """A chore that fails is tried again in the next round; the worker goes on."""
    try:
        yield
    except (LungNoduleError, OSError) as error:
        structlog.get_logger(__name__).error("chore failed", chore=what, failure=described(error))
