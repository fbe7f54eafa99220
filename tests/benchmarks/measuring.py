"""Measure in processes of their own, in turn: the host drifts, so what is compared runs A B C A B C, never A A B B.

A probe is a function of `tests.benchmarks.probes`, run in a fresh interpreter. Its memory is VmHWM, the peak that the
kernel keeps for one process; `ru_maxrss` would remember the parent's. The peaks of its children (decoders) are read
from outside while they live.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
_WATCH_S = 0.1

Result = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """One thing to measure: a label for the table, the function's name, its keyword arguments."""

    label: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """Several runs of one figure."""

    median: float
    low: float
    high: float
    runs: int


def summary(values: Sequence[float]) -> Summary:
    """Median and spread."""
    return Summary(statistics.median(values), min(values), max(values), len(values))


def in_turn(probes: Sequence[Probe], runs: int) -> dict[str, list[Result]]:
    """Run every probe ``runs`` times, round-robin; results by label."""
    results: dict[str, list[Result]] = {probe.label: [] for probe in probes}
    for number in range(runs):
        for probe in probes:
            say(f"  {number + 1}/{runs} {probe.label}")
            results[probe.label].append(in_own_process(probe))
    return results


def in_own_process(probe: Probe) -> Result:
    """One run in a fresh interpreter; ``peak_mib`` and ``children_mib`` are added to what the probe returns.

    Raises
    ------
    SystemExit
        The probe failed; its standard error is shown.
    """
    return finished(started(probe))


@dataclass(frozen=True)
class Started:
    """A probe that is running, and where it writes what it says."""

    probe: Probe
    process: subprocess.Popen[bytes]
    children: ChildMemory
    answer: Path
    errors: Path


def started(probe: Probe) -> Started:
    """Start a probe without waiting for it."""
    folder = Path(tempfile.mkdtemp(prefix="lungnodule-probe-"))
    answer, errors = folder / "answer", folder / "errors"
    with answer.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.probes", probe.function, json.dumps(dict(probe.arguments))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=err,
        )
    return Started(probe, process, ChildMemory(process.pid), answer, errors)


def finished(run: Started) -> Result:
    """Wait for a probe and take its answer."""
    with run.children:
        code = run.process.wait()
    said, errors = run.answer.read_text(), run.errors.read_text()
    for path in (run.answer, run.errors):
        path.unlink()
    run.answer.parent.rmdir()
    if code:
        raise SystemExit(f"the probe {run.probe.label} ended with {code}:\n{errors}")
    result: Result = json.loads(said.splitlines()[-1])
    result["children_mib"] = run.children.total_mib()
    return result


class ChildMemory:
    """Watches the children of a process: the most that those alive at one time had at their peaks."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._most_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def total_mib(self) -> float:
        """MiB so far."""
        return self._most_mib

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_S):
            try:
                children = psutil.Process(self._pid).children(recursive=True)
            except psutil.NoSuchProcess:
                return
            self._most_mib = max(self._most_mib, sum(peak_mib(child.pid) for child in children))


def peak_mib(pid: int | str = "self") -> float:
    """VmHWM of a process in MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / MIB for line in lines if line.startswith("VmHWM")), 0.0)


def say(text: str) -> None:
    """Progress, on standard error: standard output is the tables."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
