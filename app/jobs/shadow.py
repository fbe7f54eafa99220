"""Shadow mode: a second model analyses a scan after its answer is stored or sent; only figures remain.

One thread in each process, one scan in hand and one that waits; what comes beyond that is left out and counted. The
thread begins when nothing else is to be done here, holds the device like any analysis, and stands back at its next step
when somebody wants it. Whatever goes wrong in it is counted and logged, and ends there.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from app.imaging.inputs import InputFile
from app.inference.agreement import Agreement, agreement
from app.inference.findings import Findings, OnProgress, Progress
from app.inference.pipeline import AnalysisOptions
from app.logs import described

PATIENCE_S = 5.0
"""How long a scan waits for the process to be idle."""
_LOOK_EVERY_S = 0.05

AnalyseAgain = Callable[[Sequence[InputFile], AnalysisOptions, OnProgress], Findings]


class _StoodBack(Exception):
    """Somebody wants the device."""


@dataclass(frozen=True)
class Again:
    """A scan to be analysed again.

    Parameters
    ----------
    files
        Opens the scan, in the shadow's thread.
    options
        As for the answer, but for the operating point, which is the shadow's own.
    answer
        What the model in force said.
    discard
        Called once when the scan is no longer needed, whether or not it was opened.
    """

    files: Callable[[], AbstractContextManager[Sequence[InputFile]]]
    options: AnalysisOptions
    answer: Findings
    discard: Callable[[], None] = lambda: None


class ShadowMetrics:
    """What is counted of a shadow; labels name the two models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter(
            "lungnodule_shadow_analyses",
            "Scans offered to the shadow model, by outcome: compared, skipped (busy), stood_back, failed.",
            ("shadow", "outcome"),
            registry=registry,
        )
        self._nodules = Counter(
            "lungnodule_shadow_nodules",
            "Nodules of the active model and its shadow on the same scans, by who reported them: both, active, shadow.",
            ("active", "shadow", "reported_by"),
            registry=registry,
        )
        self._differences = Histogram(
            "lungnodule_shadow_probability_difference",
            "Absolute difference of the probability of nodules that both report.",
            ("active", "shadow"),
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0),
            registry=registry,
        )
        self._seconds = Histogram(
            "lungnodule_shadow_seconds",
            "Seconds of a whole analysis by the shadow model.",
            ("shadow",),
            buckets=(0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )

    def ended(self, shadow: str, outcome: str) -> None:
        """Count a scan that was offered."""
        self._runs.labels(shadow, outcome).inc()

    def compared(self, active: str, shadow: str, found: Agreement, seconds: float) -> None:
        """Count the differences on one scan."""
        counts = {"both": found.both, "active": found.first_only, "shadow": found.second_only}
        for reported_by, count in counts.items():
            self._nodules.labels(active, shadow, reported_by).inc(count)
        for difference in found.probability_differences:
            self._differences.labels(active, shadow).observe(difference)
        self._seconds.labels(shadow).observe(seconds)
        self.ended(shadow, "compared")


class Shadow:
    """The thread of one process. `running_shadow` starts it.

    Parameters
    ----------
    name
        The shadow model, ``name:version``.
    analyse
        By that model.
    turn
        Holds the device.
    busy
        Whether other work waits or runs in this process or line.
    metrics
        Where it is counted.
    """

    def __init__(
        self,
        name: str,
        analyse: AnalyseAgain,
        turn: Callable[[], AbstractContextManager[None]],
        busy: Callable[[], bool],
        metrics: ShadowMetrics,
    ) -> None:
        self._name = name
        self._analyse = analyse
        self._turn = turn
        self._busy = busy
        self._metrics = metrics
        self._offered: queue.Queue[Again | None] = queue.Queue(maxsize=1)
        self._attempts = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to take scans."""
        self._thread.start()

    def stop(self) -> None:
        """Stand back at the next step and take no more."""
        self._ending.set()
        while self._thread.is_alive():
            try:
                self._offered.put(None, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue
            break
        self._thread.join(timeout=PATIENCE_S)

    def offer(self, again: Again) -> None:
        """Take a scan for later; never blocks and never raises."""
        try:
            self._offered.put_nowait(again)
        except queue.Full:
            self._end(again, "skipped")

    def pass_over(self) -> None:
        """Count a scan that is not offered because others wait."""
        self._metrics.ended(self._name, "skipped")

    def settle(self) -> None:
        """Block until every scan that was offered has ended."""
        self._offered.join()

    @contextmanager
    def standing_back(self) -> Iterator[None]:
        """While a job is worked on here, the shadow stands back."""
        with self._lock:
            self._attempts += 1
        try:
            yield
        finally:
            with self._lock:
                self._attempts -= 1

    def _run(self) -> None:
        while (again := self._offered.get()) is not None:
            self._end(again, self._outcome(again))
            self._offered.task_done()
        self._offered.task_done()

    def _outcome(self, again: Again) -> str:
        try:
            if not self._idle_in_time():
                return "skipped"
            with again.files() as files, self._turn():
                began = time.perf_counter()
                findings = self._analyse(files, again.options, self._stand_back)
        except _StoodBack:
            return "stood_back"
        except BaseException as error:  # noqa: BLE001 - as in the job runner: a decoder may raise anything
            structlog.get_logger(__name__).warning("shadow failed", model=self._name, failure=described(error))
            return "failed"
        model = again.answer.model
        seconds = time.perf_counter() - began
        self._metrics.compared(f"{model.name}:{model.version}", self._name, agreement(again.answer, findings), seconds)
        return "compared"

    def _end(self, again: Again, outcome: str) -> None:
        again.discard()
        if outcome != "compared":
            self._metrics.ended(self._name, outcome)

    def _idle_in_time(self) -> bool:
        """The answer that this scan comes from may still be on its way."""
        until = time.monotonic() + PATIENCE_S
        while self._wanted():
            if time.monotonic() > until or self._ending.wait(_LOOK_EVERY_S):
                return False
        return not self._ending.is_set()

    def _wanted(self) -> bool:
        return self._attempts > 0 or self._busy()

    def _stand_back(self, _progress: Progress) -> None:
        if self._ending.is_set() or self._wanted():
            raise _StoodBack


@contextmanager
def running_shadow(shadow: Shadow) -> Iterator[Shadow]:
    """The thread, stopped at the end."""
    shadow.start()
    try:
        yield shadow
    finally:
        shadow.stop()
