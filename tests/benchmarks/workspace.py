"""How long a reader waits: `python -m tests.benchmarks.workspace`.

A phantom of 300 slices of 512 x 512 is written as DICOM and sent to the app in this process, over ASGI without a
network. Opening is the first request for a slab; then slabs of each plane, as a page asks for them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.phantom.chest import phantom_ct
from tests.api.analysed import World, analysed_world, zipped_series
from tests.tiny_model import write_tiny_model

SHAPE, SPACING_MM = (300, 512, 512), (1.0, 0.7, 0.7)
REPEATS = 7
SLABS: dict[str, dict[str, Any]] = {
    "1 axial slice": {"plane": "axial", "first": 150},
    "8 axial slices": {"plane": "axial", "first": 150, "count": 8},
    "1 coronal slice": {"plane": "coronal", "first": 250},
    "8 coronal slices": {"plane": "coronal", "first": 250, "count": 8},
    "1 sagittal slice": {"plane": "sagittal", "first": 250},
    "8 sagittal slices": {"plane": "sagittal", "first": 250, "count": 8},
    "1 axial, maximum over 10 mm": {"plane": "axial", "first": 150, "mip_mm": 10},
    "1 sagittal, maximum over 10 mm": {"plane": "sagittal", "first": 250, "mip_mm": 10},
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume = phantom_ct(shape_zyx=SHAPE, spacing_zyx_mm=SPACING_MM).volume
        scan = zipped_series(volume, folder / "series")
        del volume
        write_tiny_model(folder / "store")
        with analysed_world(folder, folder / "store") as world:
            report(world, scan)


def report(world: World, scan: bytes) -> None:
    job = world.job(scan)
    world.queue.tickets.clear()

    def opened() -> None:
        world.state.scans.forget(job)
        ask(world, job, SLABS["8 axial slices"], "gzip")

    print("| what | median ms | longest ms | CPU ms of this process |\n|---|---|---|---|")
    print(row("opening, then 8 axial slices", opened))
    for packing in ("identity", "gzip"):
        for what, params in SLABS.items():
            print(row(f"{what}, {packing}", lambda params=params, packing=packing: ask(world, job, params, packing)))


def ask(world: World, job: str, params: dict[str, Any], packing: str) -> None:
    path = f"/v1/jobs/{job}/volume/slab"
    answer = world.client.get(path, params=params, headers={"accept-encoding": packing})
    assert answer.status_code == 200, answer.text


def row(what: str, call: Callable[[], None]) -> str:
    seconds, cpu_seconds = [], []
    for _ in range(REPEATS):
        began, cpu_began = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - began)
        cpu_seconds.append(time.process_time() - cpu_began)
    figures = (statistics.median(seconds), max(seconds), statistics.median(cpu_seconds))
    return f"| {what} | " + " | ".join(f"{figure * 1000:.0f}" for figure in figures) + " |"


if __name__ == "__main__":
    main()
