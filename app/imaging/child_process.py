"""The parent's end of decoding children: start them, ask them, and kill them when they are late or dead.

A plain subprocess rather than multiprocessing: nothing of the parent is imported or forked, so it behaves the same
under uvicorn, pytest-xdist, a notebook and a thread.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

_PROGRAM = Path(__file__).with_name("pixel_worker.py")
_MAX_ANSWER_BYTES = 1 << 16
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TMPDIR", "VIRTUAL_ENV")
"""The environment may hold keys and passwords; a child that reads hostile data gets none of them."""
_MOST_BY_DEFAULT = 8
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ChildFailedError(Exception):
    """The child died, was too late, or answered nonsense; whoever asked says which file it was about."""


class PixelWorker:
    """A running `app.imaging.pixel_worker`; used by one thread at a time, killed on exit.

    Parameters
    ----------
    memory_bytes
        Limit of its address space.
    timeout_s
        For one answer; the first includes the start of the process.
    """

    def __init__(self, memory_bytes: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process = subprocess.Popen(  # noqa: S603  # our own program, no shell, no argument from outside
            [sys.executable, "-P", str(_PROGRAM), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ONE_THREAD,
        )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._requests.close()
        self._answers.close()

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets `ChildFailedError`."""
        self._process.kill()
        self._process.wait()

    def ask(self, request: Mapping[str, Any], max_bytes: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Send a request and wait for its answer.

        Returns
        -------
        answer, payload
            The JSON object and the raw bytes that came after it.

        Raises
        ------
        ChildFailedError
            If the child died, took longer than its time, or would send over ``max_bytes``.
        """
        deadline = time.monotonic() + self._timeout_s
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            length = int.from_bytes(self._received(4, deadline).tobytes(), "little")
            if length > _MAX_ANSWER_BYTES:
                raise ChildFailedError("answer too long")
            answer = json.loads(self._received(length, deadline).tobytes())
            size = int(answer.get("bytes", 0))
            if not 0 <= size <= max_bytes:
                raise ChildFailedError("payload larger than was asked for")
            return answer, self._received(size, deadline)
        except (OSError, ValueError) as fault:
            raise ChildFailedError(type(fault).__name__) from fault

    def _received(self, count: int, deadline: float) -> NDArray[np.uint8]:
        """Exactly ``count`` bytes."""
        received = np.empty(count, np.uint8)
        view = received.data
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        while view:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise ChildFailedError("too late")
            read = os.readv(self._answers.fileno(), [view])
            if read == 0:
                raise ChildFailedError("died")
            view = view[read:]
        return received


class PixelWorkers:
    """Several `PixelWorker`, started as soon as they will be needed and killed together on exit.

    Parameters
    ----------
    count
        How many at most; 0 takes one for each core, up to 8: each takes memory and a third of a second of a core.
    memory_bytes, timeout_s
        Of each.
    """

    def __init__(self, count: int, memory_bytes: int, timeout_s: float) -> None:
        self.idle: SimpleQueue[PixelWorker] = SimpleQueue()
        """Whoever takes one puts it back."""
        self.count = count or min(_MOST_BY_DEFAULT, _available_cores())
        self._memory_bytes = memory_bytes
        self._timeout_s = timeout_s
        self._workers: list[PixelWorker] = []
        self._pipes = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipes.close()

    def start(self, frames: int) -> int:
        """Start them unless they run, no more than there are frames; gives how many there are."""
        while len(self._workers) < min(self.count, frames):
            worker = self._pipes.enter_context(PixelWorker(self._memory_bytes, self._timeout_s))
            self._workers.append(worker)
            self.idle.put(worker)
        return len(self._workers)

    def kill(self) -> None:
        """End all; whoever waits for an answer gets `ChildFailedError`."""
        for worker in self._workers:
            worker.kill()


def _available_cores() -> int:
    # Not every system has the former; the latter counts cores that a container may not use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
