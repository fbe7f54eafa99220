"""Session options of ONNX Runtime, and the variants of a model, side by side: seconds and peak memory of each.

    python -m tests.benchmarks.sessions [--model FOLDER] [--shape 288 208 272] [--rounds 5] [--only threads arena ...]

Every row is a process of its own that stays open; the rounds go through all rows in turn, so that a neighbour who
takes the cores slows all of them alike. The detector gets one array of the shape, the characteriser 16 candidates.
``peak`` is VmHWM of the row's process. Ratios are medians of the rounds' ratios to the first row.
"""

# ruff: noqa: PLC0415 - each process imports what it measures

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
CANDIDATES = 16


@dataclass(frozen=True)
class Row:
    """One way to run the networks."""

    name: str
    group: str
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"


ROWS = (
    Row("as served, 2 threads", "reference"),
    Row("1 thread", "threads", {"threads": 1}),
    Row("arena off", "arena", {"memory_arena": False}),
    Row("memory pattern on", "pattern", {"reuse_memory_pattern": True}),
    Row("pattern on, arena off", "pattern", {"reuse_memory_pattern": True, "memory_arena": False}),
    Row("graph optimisation off", "graph", {"graph_optimisation": "off"}),
    Row("graph optimisation basic", "graph", {"graph_optimisation": "basic"}),
    Row("graph optimisation extended", "graph", {"graph_optimisation": "extended"}),
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; default: the newest in model_store/")
    parser.add_argument("--shape", type=int, nargs=3, default=(288, 208, 272), help="detector's array (z, y, x)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="groups: threads, arena, pattern, graph, variants")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    model = options.model or newest_model()
    rows = [
        row for row in (*ROWS, *variant_rows(model)) if not options.only or row.group in {"reference", *options.only}
    ]
    print_table(measured(rows, model, tuple(options.shape), options.rounds), options)


def newest_model() -> Path:
    """The repository's own."""
    from app.inference.model_store import list_models

    return list_models(ROOT / "model_store")[-1].path


def variant_rows(model: Path) -> list[Row]:
    """One row for each precision that can run here."""
    from app.inference.manifest import load_manifest
    from app.inference.openvino_network import has_openvino

    manifest = load_manifest(model)
    variants = {**manifest.detector.variants, **manifest.characteriser.variants}
    fitting = [n for n, v in variants.items() if v.device == "cpu" and (v.runtime != "openvino" or has_openvino())]
    return [Row(name, "variants", precision=name) for name in sorted(fitting)]


def measured(rows: list[Row], model: Path, shape: tuple[int, ...], rounds: int) -> dict[str, list[dict[str, float]]]:
    """By row what each round measured; the first round warms up and is left out."""
    processes = {row.name: started(row, model, shape) for row in rows}
    answers: dict[str, list[dict[str, float]]] = {row.name: [] for row in rows}
    for number in range(rounds + 1):
        for name, process in processes.items():
            process.stdin.write("run\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise SystemExit(f"{name}: the process ended; see its message above")
            if number:
                answers[name].append(json.loads(answer))
    for process in processes.values():
        process.communicate()
    return answers


def started(row: Row, model: Path, shape: tuple[int, ...]) -> Any:
    """A process that measures once for each line it reads."""
    asked = {"options": {"threads": 2, **row.options}, "precision": row.precision, "model": str(model), "shape": shape}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.sessions", "--worker", json.dumps(asked)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def work(asked: dict[str, Any]) -> None:
    """The body of a row's process."""
    import numpy as np

    from app.inference.model_store import load_model
    from app.inference.network import SessionOptions

    model = load_model(Path(asked["model"]), SessionOptions(device="cpu", **asked["options"]), asked["precision"])
    entry = model.manifest.characteriser
    rng = np.random.default_rng(0)
    volume = rng.random((1, 1, *asked["shape"]), dtype=np.float32)
    slices = len(entry.crop.slice_offsets_mm)
    crops = rng.random((CANDIDATES, slices, entry.crop.size_px, entry.crop.size_px), dtype=np.float32)
    for _ in sys.stdin:
        began = time.perf_counter()
        model.detector({"volume": volume})
        middle = time.perf_counter()
        model.characteriser({"crops": crops})
        ended = time.perf_counter()
        print(json.dumps({"detector": middle - began, "characteriser": ended - middle, "peak": peak_mib()}), flush=True)


def peak_mib() -> float:
    """VmHWM of this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / MIB


def print_table(answers: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """Medians with least and most, and the ratio to the first row."""
    first = next(iter(answers.values()))
    shape = " x ".join(map(str, options.shape))
    print(f"detector on {shape}, characteriser on {CANDIDATES} candidates; {options.rounds} rounds, load "
          f"{os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print(f"{'':28}{'detector s':>22}{'ratio':>7}{'characteriser s':>22}{'ratio':>7}{'peak MiB':>10}")
    for name, rounds in answers.items():
        cells = "".join(timing(rounds, first, network) for network in ("detector", "characteriser"))
        print(f"{name:28}{cells}{rounds[-1]['peak']:10.0f}")


def timing(rounds: list[dict[str, float]], first: list[dict[str, float]], network: str) -> str:
    """Median (least to most) and the median of the ratios."""
    seconds = [answer[network] for answer in rounds]
    ratio = statistics.median(a[network] / b[network] for a, b in zip(rounds, first, strict=True))
    spread = f"{statistics.median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})"
    return f"{spread:>22}{ratio:7.2f}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
