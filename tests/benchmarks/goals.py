"""The goals for speed and memory, each against what was measured: met, not met, or not measured here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.measuring import summary
from tests.benchmarks.scaling import fitted, monai_scan
from tests.benchmarks.tables import Table, peak

Parts = dict[str, dict[str, Any]]
Row = tuple[str, str, bool]

STRAIGHT = 0.98
"""R2 from which growth is called linear."""


def goals(parts: Parts) -> Table:
    """One row for each goal."""
    rows = []
    for part, goal, check in _GOALS:
        measured = parts.get(part, {})
        if not measured:
            rows.append([goal, "", "not measured"])
        elif "left_out" in measured:
            rows.append([goal, measured["left_out"], "not measured"])
        else:
            found = list(check(measured))
            rows += [[goal if not name else f"{goal}: {name}", value, "**met**" if met else "**not met**"]
                     for name, value, met in found] or [[goal, "", "not measured"]]  # fmt: skip
    return Table("Goals", ["goal", "measured", ""], rows)


def _median(runs: list[dict[str, Any]], stage: str) -> float:
    return summary([run["seconds"][stage] for run in runs]).median


def _usual_scan(part: dict[str, Any]) -> Iterator[Row]:
    if part["usual"] != "300 slices":
        return
    runs = part["runs"]["300 slices"]
    total, rest, memory = _median(runs, "total"), _median(runs, "all but networks"), peak(runs)
    yield "seconds", f"{total:.2f} s", total <= 3.0
    yield "memory", f"{memory / 1024:.2f} GiB", memory <= 1.5 * 1024
    yield "all but the networks", f"{rest:.2f} s", rest <= 0.5


def _real_scan(part: dict[str, Any]) -> Iterator[Row]:
    for label, runs in part["runs"].items():
        if label.startswith("LIDC-IDRI-0001"):
            total = _median(runs, "total")
            yield "", f"{total:.2f} s", total <= 2.0


def _real_scan_variants(part: dict[str, Any]) -> Iterator[Row]:
    for label, runs in part["runs"].items():
        name, _, scan = label.partition(", ")
        if scan.startswith("LIDC-IDRI-0001") and name != "fp32":
            total = _median(runs, "total")
            yield name, f"{total:.2f} s", total <= 2.0


def _against_monai(part: dict[str, Any]) -> Iterator[Row]:
    found = monai_scan(part)
    yield "speed", f"{found.time_ratio:.0f} x (computed from windows)", found.time_ratio >= 100
    yield "memory", f"1/{found.memory_ratio:.1f} (computed from windows)", found.memory_ratio >= 4


def _linear(part: dict[str, Any]) -> Iterator[Row]:
    if len(part["facts"]) < 3:
        return
    time_line, memory_line = fitted(part, "total"), fitted(part, "peak")
    yield "time", f"R2 {time_line.r_squared:.3f}", time_line.r_squared >= STRAIGHT
    yield "memory", f"R2 {memory_line.r_squared:.3f}", memory_line.r_squared >= STRAIGHT
    free, capped = (peak(part["runs"][label]) for label in (part["longest"], f"{part['longest']} capped"))
    shown = f"{capped:.0f} MiB instead of {free:.0f} for {part['longest']} slices"
    yield f"a cap of {part['cap_mib']} MiB a pass", shown, capped < free


def _http(part: dict[str, Any]) -> Iterator[Row]:
    percent = part["overhead"]["overhead_percent"]
    yield "", f"{percent:+.1f} %", percent <= 5.0


def _cold_start(part: dict[str, Any]) -> Iterator[Row]:
    seconds = summary([each["seconds"] for each in part["cold_start"]]).median
    yield "", f"{seconds:.2f} s", seconds <= 3.0


def _gpu(part: dict[str, Any]) -> Iterator[Row]:
    seconds = summary([s for run in part["runs"]["cuda"] for s in run["warm_s"]]).median
    yield "", f"{seconds:.2f} s warm", seconds <= 0.3


_GOALS: tuple[tuple[str, str, Callable[[dict[str, Any]], Iterator[Row]]], ...] = (
    ("stages", "300 slices, uncompressed: <= 3 s, <= 1.5 GiB, everything but the networks <= 0.5 s", _usual_scan),
    ("stages", "133 slices (LIDC-IDRI-0001): <= 2 s", _real_scan),
    ("variants", "133 slices (LIDC-IDRI-0001) in a variant that loses under 0.5 points: <= 2 s", _real_scan_variants),
    ("monai", "against MONAI's RetinaNet: >= 100 x faster, <= 1/4 of the memory", _against_monai),
    ("linearity", "100 to 1,000 slices: linear in lung volume, bounded by a cap", _linear),
    ("http", "HTTP on top of the pipeline called directly: <= 5 %", _http),
    ("http", "cold start to ready: <= 3 s", _cold_start),
    ("gpu", "GPU: <= 0.3 s for 300 slices", _gpu),
)
