"""Seconds and peak memory of the lung mask: ``python tests/benchmarks/lung_mask.py [CT ...]``.

Without arguments a phantom of 300 slices of 512 x 512 at 1.25 x 0.7 x 0.7 mm is segmented; with paths, those scans.
CPU seconds are given beside wall seconds, because a shared machine is rarely idle.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from app.imaging.lungs import segment_lungs
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from app.phantom.chest import phantom_ct


def peak_mib() -> float:
    """Peak resident memory of this process; VmHWM, for ru_maxrss counts the parent's too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(name: str, volume: CtVolume, repeats: int = 7) -> None:
    """Print one row."""
    before_mib = peak_mib()
    wall, cpu = [], []
    for _ in range(repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        lungs = segment_lungs(volume)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_started)
    shape = " x ".join(str(n) for n in volume.hu.shape)
    print(
        f"{name:24} {shape:>16}  median {statistics.median(wall):.3f} s  best {min(wall):.3f} s  cpu {min(cpu):.3f} s"
        f"  +{peak_mib() - before_mib:.0f} MiB  {lungs.volume_ml():.0f} ml"
    )


def main() -> None:
    """Measure what the command line names."""
    if len(sys.argv) == 1:
        phantom = phantom_ct(shape_zyx=(300, 512, 512), spacing_zyx_mm=(1.25, 0.7, 0.7))
        measure("phantom", phantom.volume)
    for path in map(Path, sys.argv[1:]):
        volume, _ = read_ct(path)
        measure(path.name, volume)


if __name__ == "__main__":
    main()
