"""Processes that start at once, forked from one that has imported everything and has no threads; killed for real.

    python -m tests.jobs.nursery

reads one JSON command on each line of its input and answers each with one line: ``{"start": [arguments], "env": {...},
"log": path}`` gives a pid, ``{"poll": pid}`` its exit code as `subprocess` counts it, or null while it runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
"""Of Linux."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Nursery:
    """The parent of all processes, seen from a test."""

    process: subprocess.Popen[str] = field(
        default_factory=lambda: subprocess.Popen(
            [sys.executable, "-m", "tests.jobs.nursery"], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    )  # fmt: skip

    def start(self, arguments: list[str], env: dict[str, str], log: Path) -> Child:
        return Child(self, self.ask({"start": arguments, "env": env, "log": str(log)}))

    def ask(self, command: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@dataclass
class Child:
    """One process."""

    nursery: Nursery
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.ask({"poll": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def main() -> None:
    import alembic.command  # noqa: F401, PLC0415
    import dbos  # noqa: F401, PLC0415
    import psycopg  # noqa: F401, PLC0415

    from tests.jobs import stub  # noqa: F401, PLC0415

    assert threading.active_count() == 1
    ended: dict[int, int] = {}
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            print(_fork(command), flush=True)
            continue
        pid = command["poll"]
        if pid not in ended:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[pid] = os.waitstatus_to_exitcode(status)
        print(json.dumps(ended.get(pid)), flush=True)


def _fork(command: dict[str, Any]) -> int:
    if pid := os.fork():
        return pid
    code = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(
                _PR_SET_PDEATHSIG, signal.SIGKILL
            )  # none outlives a test run that was killed itself
        log = os.open(command["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        os.environ.update(command["env"])
        signal.signal(signal.SIGINT, signal.SIG_DFL)

        from tests.jobs import stub  # noqa: PLC0415

        stub.main(command["start"])
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 0
    except BaseException:  # noqa: BLE001 - the end of this process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
