"""Tables from what was measured, for the terminal and for Markdown alike. Nothing is typed: every figure has a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.measuring import Summary, summary
from tests.benchmarks.scaling import Line, fitted, monai_scan

Part = dict[str, Any]

STAGES = ("cold start", "read", "lungs", "prepare", "detect", "characterise", "measure", "total")
_PATHS = {
    "ours": "ours: one pass over the lungs",
    "simpleitk": "SimpleITK, 128-cubes, quarter overlap",
    "naive": "pydicom + scipy zoom, 128-cubes, half overlap",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under column heads, and what must be said beside them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self, *, titled: bool = True) -> str:
        """A Markdown table; the first column is left-aligned, figures right-aligned."""
        head = "| " + " | ".join(self.columns) + " |\n|---|" + "---:|" * (len(self.columns) - 1)
        rows = "\n".join("| " + " | ".join(row) + " |" for row in self.rows)
        notes = "".join(f"\n{note}" for note in self.notes)
        title = f"### {self.title}\n\n" if titled else ""
        return f"{title}{head}\n{rows}\n" + (f"{notes}\n" if notes else "")

    def text(self) -> str:
        """The same in aligned columns."""
        lines = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(line[n]) for line in lines) for n in range(len(self.columns))]
        body = "\n".join(
            "  ".join(cell.ljust(width) if n == 0 else cell.rjust(width)
                      for n, (cell, width) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        )  # fmt: skip
        return "\n".join([f"\n== {self.title} ==", body, *(f"   {note}" for note in self.notes)])


def seconds(values: Sequence[float]) -> str:
    """Median, and the spread behind it."""
    return _spread(summary(values), 2)


def mebibytes(runs: Sequence[Part]) -> str:
    """Peak of the process with its children, the most of all runs."""
    return f"{peak(runs):.0f} MiB"


def peak(runs: Sequence[Part]) -> float:
    """The most of all runs, in MiB: the process's own peak and its children's."""
    return max(run["peak_mib"] + run.get("children_mib", 0.0) for run in runs)


def _spread(found: Summary, digits: int) -> str:
    if found.runs == 1:
        return f"{found.median:.{digits}f}"
    return f"{found.median:.{digits}f} ({found.low:.{digits}f}-{found.high:.{digits}f})"


def _stage_columns(runs: Sequence[Part], names: Sequence[str]) -> list[str]:
    return [seconds([run["seconds"][name] for run in runs]) for name in names]


def stages(part: Part) -> list[Table]:
    """Seconds per stage."""
    shown = (*STAGES, "networks", "all but networks")
    rows = [
        [label, *_stage_columns(runs, shown), mebibytes(runs), f"{part['facts'][label]['lung_ml']} ml"]
        for label, runs in part["runs"].items()
    ]
    n = len(next(iter(part["runs"].values())))
    note = f"Seconds, median (least-most) of {n}; each run is the first analysis of a fresh process."
    return [Table("Seconds per stage", ["scan", *shown, "peak", "lungs"], rows, [note])]


def reading(part: Part) -> list[Table]:
    """Reading by transfer syntax."""
    rows = [
        [
            label,
            f"{part['received_mib'][label]:.0f} MiB",
            seconds([run["seconds"]["read"] for run in runs]),
            seconds([run["cpu_s"] for run in runs]),
            mebibytes(runs),
        ]
        for label, runs in part["runs"].items()
    ]
    note = f"{part['slices']} slices; the stages after it do not depend on the syntax. Peak with decoding processes."
    return [Table("Reading by transfer syntax", ["syntax", "received", "read, s", "CPU s", "peak"], rows, [note])]


def baselines(part: Part) -> list[Table]:
    """Three paths, one detector."""
    ours = summary([run["seconds"]["total"] for run in part["runs"]["ours"]]).median
    rows = []
    for label, runs in part["runs"].items():
        total = summary([run["seconds"]["total"] for run in runs]).median
        hits = sum(_is_hit(nodule, runs[0]["candidates"]) for nodule in part["truth"])
        rows.append([_PATHS[label], *_stage_columns(runs, ("read", "mask", "prepare", "network", "total")),
                     str(runs[0]["windows"]), f"{total / ours:.1f} x", mebibytes(runs),
                     f"{hits} of {len(part['truth'])}"])  # fmt: skip
    columns = ["path", "read", "mask", "prepare", "network", "total", "passes", "time", "peak", "nodules found"]
    note = (
        f"{part['slices']} slices, files to candidates, the same detector network; a candidate within the radius hits."
    )
    return [Table("The same detector on other paths", columns, rows, [note])]


def _is_hit(nodule: Part, candidates: Sequence[Sequence[float]]) -> bool:
    radius = nodule["diameter_mm"] / 2
    return any(
        sum((a - b) ** 2 for a, b in zip(c[:3], nodule["center_lps_mm"], strict=True)) < radius**2 for c in candidates
    )


def monai(part: Part) -> list[Table]:
    """MONAI's RetinaNet."""
    found = monai_scan(part)
    ours_s = summary([run["seconds"]["total"] for run in part["runs"]["ours"]])
    rows = [
        [f"ours, whole path, {part['slices']} slices", _spread(ours_s, 2), mebibytes(part["runs"]["ours"]), "1", "1"]
    ]
    for label in found.measured:
        runs = part["runs"][label]
        rows.append([f"MONAI's network, one window {label}", seconds([r["seconds"]["window"] for r in runs]),
                     mebibytes(runs), "", ""])  # fmt: skip
    own = f"{found.window_mib:.0f} MiB"
    ratios = [f"{found.time_ratio:.0f} x", f"{found.memory_ratio:.1f} x"]
    rows.append(["one window 512x512x192 (computed)", f"{found.window_s:.0f}", own, "", ""])
    rows.append([f"the scan, {part['windows_a_scan']} windows (computed)", f"{found.scan_s:.0f}", own, *ratios])
    notes = [
        "The LUNA16 bundle: RetinaNet on ResNet-50, random weights, exported by torch; same ONNX Runtime and threads.",
        "Its network alone, without reading, resampling, anchors and suppression.",
        "Computed: seconds by voxels from the larger window; memory on the line through the windows.",
    ]
    return [Table("Against MONAI's RetinaNet", ["what", "seconds", "peak", "time", "memory"], rows, notes)]


def http(part: Part) -> list[Table]:
    """Cold start and overhead."""
    over, side = part["overhead"], part["side_by_side"]
    rows = [
        ["cold start to ready", seconds([each["seconds"] for each in part["cold_start"]]),
         f"{max(each['idle_mib'] for each in part['cold_start']):.0f} MiB idle"],
        ["pipeline called directly, warm", seconds(over["direct_s"]), f"{over['direct_mib']:.0f} MiB"],
        ["POST /v1/predict, warm", seconds(over["post_s"]), f"{over['service_mib']:.0f} MiB"],
        ["of it within the pipeline", seconds(over["pipeline_within_post_s"]), ""],
        ["HTTP on top", f"{over['overhead_percent']:+.1f} %", ""],
        [f"{side['processes']} processes of one thread, side by side", f"{side['seconds']:.2f}",
         f"{side['peak_mib']:.0f} MiB together, {side['studies_per_hour']:.0f} studies/h"],
    ]  # fmt: skip
    note = f"{part['slices']} uncompressed slices, sent as one part each over loopback by a client on the same cores."
    return [Table("The service", ["what", "seconds", "memory"], rows, [note])]


def clients(part: Part) -> list[Table]:
    """Clients at once."""
    rows = []
    for each in part["rounds"]:
        refused = ", ".join(f"{count} {code}" for code, count in each["refused"].items()) or "0"
        rows.append([str(each["clients"]), str(each["requests"]), str(each["answered"]), refused,
                     f"{each['per_hour']:.0f}", f"{each['p50_s']:.2f}", f"{each['p99_s']:.2f}",
                     f"{each['peak_mib']:.0f} MiB"])  # fmt: skip
    columns = ["clients", "requests", "answered", "refused", "studies/h", "p50, s", "p99, s", "peak"]
    note = f"{part['slices']} slices each; one round, so p99 is close to the slowest. The peak is the process's so far."
    return [Table("Clients at once", columns, rows, [note])]


def variants(part: Part) -> list[Table]:
    """Arithmetic."""
    rows = []
    for label, runs in part["runs"].items():
        plain = part["runs"]["fp32" + "".join(label.partition(",")[1:])]
        base = summary([run["seconds"]["networks"] for run in plain]).median
        told = "; ".join(f"{f['network']} {f['name']} {f['value']:.4f} (fp32 {f['fp32']:.4f}, n={f['n']})"
                         for f in part["accuracy"].get(label, []))  # fmt: skip
        ran = runs[0]["precision"]
        networks = summary([run["seconds"]["networks"] for run in runs]).median
        rows.append([label, *_stage_columns(runs, ("networks", "total")), f"{networks / base:.2f}", mebibytes(runs),
                     ", ".join(f"{k} {v}" for k, v in ran.items()), told])  # fmt: skip
    columns = ["asked for", "networks, s", "total, s", "ratio", "peak", "what ran", "accuracy in the manifest"]
    return [Table("Variants of the networks", columns, rows, [f"{part['slices']} slices."])]


def gpu(part: Part) -> list[Table]:
    """CPU against GPU."""
    rows = [
        [label, *_stage_columns(runs, STAGES), seconds([s for run in runs for s in run["warm_s"]]), runs[0]["provider"]]
        for label, runs in part["runs"].items()
    ]
    compared = Table("CPU and GPU", ["device", *STAGES, "total, warm", "provider"], rows, [f"{part['slices']} slices."])
    return [compared, *clients({**part, "threads": 0})]


def linearity(part: Part) -> list[Table]:
    """Growth."""
    rows = []
    for label, runs in part["runs"].items():
        facts = part["facts"][label.removesuffix(" capped")]
        z, y, x = facts["prepared_zyx"]
        rows.append([label, f"{facts['lung_ml']}", f"{z * y * x / 1e6:.1f}",
                     *_stage_columns(runs, ("read", "lungs", "prepare", "detect", "characterise", "total")),
                     mebibytes(runs), str(runs[0]["detector_runs"])])  # fmt: skip
    time_line, memory_line = fitted(part, "total"), fitted(part, "peak")
    columns = [
        "slices",
        "lungs, ml",
        "Mvoxel",
        "read",
        "lungs",
        "prepare",
        "detect",
        "characterise",
        "total",
        "peak",
        "passes",
    ]
    cap = f"LUNGNODULE_DETECTOR_MEMORY_MIB={part['cap_mib']}"
    notes = [
        f"One chest stretched along z at 1 mm a slice, no cap on a pass; the last row with {cap}.",
        _line_note("total seconds", time_line, "s"),
        _line_note("peak", memory_line, "MiB"),
    ]
    return [Table("Growth with the scan", columns, rows, notes)]


def _line_note(what: str, line: Line, unit: str) -> str:
    return (f"Line through {what} against lung volume: {line.intercept:.2f} {unit} + {1000 * line.slope:.2f} {unit} a "
            f"litre, R2 = {line.r_squared:.3f}.")  # fmt: skip


def mask(part: Part) -> list[Table]:
    """Lung mask."""
    rows = [
        [label, f"{each['dice']:.4f}", f"{100 * each['kept_share']:.2f} %", f"{each['low_ml']}", f"{each['full_ml']}",
         f"{each['seconds']['low']:.2f}", f"{each['seconds']['full']:.2f}"]
        for label, each in part["scans"].items()
    ]  # fmt: skip
    columns = ["scan", "Dice", "lung kept with margin", "low, ml", "full, ml", "low, s", "full, s"]
    note = "Full resolution: the same method on voxels of 0.9 mm or the scan's own, whichever is coarser."
    return [Table("Low-resolution lung mask against full resolution", columns, rows, [note])]


TABLES: dict[str, Callable[[Part], list[Table]]] = {
    make.__name__: make for make in (stages, reading, baselines, monai, http, clients, variants, gpu, linearity, mask)
}
