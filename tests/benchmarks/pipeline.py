"""Seconds per stage and peak memory of one analysis, from a DICOM folder to findings.

    python -m tests.benchmarks.pipeline [--model FOLDER] [--slices 300] [--threads 2] [--runs 3] [--series FOLDER]

Every run is a process of its own, so that the peak (VmHWM) is that of one scan in a fresh service, and the cold start
is a real one. Without ``--series`` a phantom is made and written first; give a folder to measure another series.
Times on a shared machine drift: compare within one run only. ``cpu`` is the seconds that all threads worked.
"""

# ruff: noqa: PLC0415 - what is imported is measured: the cold start begins before the first import

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("read", "lungs", "prepare", "detect", "characterise", "measure", "total")
MIB = 1 << 20


def main() -> None:
    """Measure and print the table."""
    options = parsed_options()
    if options.one_run:
        print(json.dumps(one_run(options)))
        return
    with tempfile.TemporaryDirectory(prefix="lungnodule-benchmark-") as scratch:
        series = options.series or phantom_series(Path(scratch) / "series", options.slices)
        model = options.model or newest_model(Path(scratch))
        runs = [in_a_process_of_its_own(options, series, model) for _ in range(options.runs)]
    print_table(runs, options.threads)


def parsed_options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; default: the newest in model_store/, else a tiny one")
    parser.add_argument("--series", type=Path, help="DICOM folder or file to analyse instead of a phantom")
    parser.add_argument("--slices", type=int, default=300, help="slices of the phantom, 512 x 512")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--max-voxels", type=int, help="largest pass of the detector; smaller means tiles")
    parser.add_argument("--one-run", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def phantom_series(folder: Path, slices: int) -> Path:
    """300 mm of chest at 0.7 x 0.7 mm as uncompressed DICOM, one file a slice."""
    from app.phantom.chest import phantom_ct
    from app.phantom.dicom_series import write_dicom_series

    started = time.perf_counter()
    phantom = phantom_ct(shape_zyx=(slices, 512, 512), spacing_zyx_mm=(375.0 / slices, 0.7, 0.7))
    write_dicom_series(phantom.volume, folder)
    print(f"phantom of {slices} slices written in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return folder


def newest_model(scratch: Path) -> Path:
    """The repository's model, or the tests' tiny one where there is none yet."""
    from app.inference.model_store import list_models
    from tests.tiny_model import write_tiny_model

    models = list_models(ROOT / "model_store") if (ROOT / "model_store").is_dir() else []
    return models[-1].path if models else write_tiny_model(scratch / "store")


def in_a_process_of_its_own(options: argparse.Namespace, series: Path, model: Path) -> dict[str, float]:
    """One run; what it measured."""
    command = [sys.executable, "-m", "tests.benchmarks.pipeline", "--one-run", "--threads", str(options.threads)]
    command += ["--series", str(series.resolve()), "--model", str(model.resolve())]
    if options.max_voxels:
        command += ["--max-voxels", str(options.max_voxels)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def one_run(options: argparse.Namespace) -> dict[str, float]:
    """Cold start, one analysis, peak memory of this process and of the largest of its children."""
    started = time.perf_counter()
    from app.inference.model_store import load_model, warm_up
    from app.inference.network import SessionOptions
    from app.inference.pipeline import AnalysisOptions, analyse

    model = load_model(options.model, SessionOptions(threads=options.threads))
    warm_up(model)
    cold_start = time.perf_counter() - started
    idle_mib = peak_mib()
    chosen = AnalysisOptions(threads=options.threads)
    if options.max_voxels:
        chosen = AnalysisOptions(threads=options.threads, detector_max_voxels=options.max_voxels)
    cpu_started = time.process_time()
    findings = analyse(options.series, model, chosen)
    return {
        "cold start": cold_start,
        **findings.timings_s,
        "cpu": time.process_time() - cpu_started,
        "nodules": len(findings.nodules),
        "idle MiB": idle_mib,
        "peak MiB": peak_mib(),
        "child MiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def peak_mib() -> float:
    """VmHWM of this process; `ru_maxrss` would remember the parent's."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / MIB


def print_table(runs: list[dict[str, float]], threads: int) -> None:
    """Median, least and most of every row."""
    load = os.getloadavg()[0]
    print(
        f"\n{len(runs)} runs, {threads} threads, {os.cpu_count()} cores, load {load:.1f}, {runs[0]['nodules']} nodules"
    )
    print(f"{'':14}{'median':>9}{'min':>9}{'max':>9}")
    for row in ("cold start", *STAGES, "cpu"):
        print_row(row, [run[row] for run in runs], "s", digits=3)
    for row in ("idle MiB", "peak MiB", "child MiB"):
        print_row(row.removesuffix(" MiB"), [run[row] for run in runs], "MiB", digits=0)


def print_row(name: str, values: list[float], unit: str, digits: int) -> None:
    """One row of the table."""
    shown = (statistics.median(values), min(values), max(values))
    print(f"{name:14}" + "".join(f"{value:9.{digits}f}" for value in shown) + f" {unit}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
