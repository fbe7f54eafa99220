"""What runs inside a measured process: ``python -m tests.benchmarks.probes NAME '{"argument": ...}'`` prints JSON.

What a probe imports is part of what it measures where the name says so (`analysis`: the cold start), so imports are
inside the functions.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import peak_mib

Result = dict[str, Any]


def analysis(
    series: str,
    model: str,
    threads: int,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    memory_mib: float | None = None,
    uncapped: bool = False,
    again: int = 0,
) -> Result:
    """Cold start and the first analysis of a fresh process; ``again`` adds more in the same one."""
    began = time.perf_counter()
    from app.inference.model_store import load_model, warm_up
    from app.inference.network import SessionOptions
    from app.inference.pipeline import AnalysisOptions, analyse

    loaded = load_model(Path(model), SessionOptions(threads=threads, device=device), precision)
    warm_up(loaded)
    cold_start_s, idle_mib = time.perf_counter() - began, peak_mib()
    detector, characteriser = _Timed(loaded.detector), _Timed(loaded.characteriser)
    verdict = _Timed(loaded.judge)
    loaded = replace(loaded, detector=detector, characteriser=characteriser, verdict=verdict)
    options = AnalysisOptions(
        threads=threads, detector_memory_mib=memory_mib, detector_max_voxels=1 << 40 if uncapped else None
    )
    cpu_before = _cpu_s()
    findings = analyse(Path(series), loaded, options)
    cpu_s = _cpu_s() - cpu_before
    seconds = {"cold start": cold_start_s, **findings.timings_s}
    seconds["networks"] = detector.seconds + verdict.seconds + characteriser.seconds
    seconds["all but networks"] = seconds["total"] - seconds["networks"]
    found = {"seconds": seconds, "cpu_s": cpu_s, "idle_mib": idle_mib, "nodules": len(findings.nodules),
             "provider": findings.execution_provider, "precision": dict(findings.precision),
             "detector_runs": detector.calls, "detector_s": detector.seconds,
             "judged_slices": verdict.slices, "outlined_slices": characteriser.slices,
             "characteriser_s": verdict.seconds + characteriser.seconds}  # fmt: skip
    found["warm_s"] = [analyse(Path(series), loaded, options).timings_s["total"] for _ in range(again)]
    return found


def reading(series: str) -> Result:
    """`read_ct` alone; decoding children's seconds are counted."""
    from app.imaging.reading import read_ct

    before, began = _cpu_s(), time.perf_counter()
    volume, _ = read_ct(Path(series))
    seconds = time.perf_counter() - began
    return {"seconds": {"read": seconds}, "cpu_s": _cpu_s() - before, "voxels": int(volume.hu.size)}


def scan_facts(series: str, model: str) -> Result:
    """What does not depend on time: lung volume, size of the prepared array, bytes received."""
    from app.imaging.lungs import segment_lungs
    from app.imaging.preprocessing import preprocess
    from app.imaging.reading import read_ct
    from app.inference.manifest import load_manifest

    path = Path(series)
    files = list(path.iterdir()) if path.is_dir() else [path]
    volume, _ = read_ct(path)
    lungs = segment_lungs(volume)
    prepared = preprocess(volume, lungs, load_manifest(Path(model)).preprocessing)
    return {
        "shape_zyx": volume.grid.shape_zyx,
        "spacing_zyx_mm": [round(float(mm), 4) for mm in volume.grid.spacing_zyx_mm],
        "lung_ml": round(lungs.volume_ml()),
        "prepared_zyx": prepared.grid.shape_zyx,
        "prepared_mm": float(prepared.grid.spacing_zyx_mm[0]),
        "received_mib": round(sum(file.stat().st_size for file in files) / 2**20, 1),
    }


def path_to_candidates(series: str, model: str, threads: int, path: str) -> Result:
    """One of `tests.benchmarks.paths`, from files to candidates, with the shipped detector."""
    from app.inference.model_store import load_model, warm_up
    from app.inference.network import SessionOptions
    from tests.benchmarks import paths

    loaded = load_model(Path(model), SessionOptions(threads=threads, device="cpu"))
    warm_up(loaded)
    before = _cpu_s()
    found = paths.PATHS[path](Path(series), loaded, threads)
    seconds = {**found.seconds, "total": sum(found.seconds.values())}
    candidates = [[*(round(v, 2) for v in c.center_lps_mm), round(c.probability, 4)] for c in found.candidates]
    return {"seconds": seconds, "cpu_s": _cpu_s() - before, "windows": found.windows, "candidates": candidates}


def retinanet(network: str, window_xyz: list[int], threads: int) -> Result:
    """One window of MONAI's network in the service's own kind of session."""
    import numpy as np

    from app.inference.network import SessionOptions, open_network

    opened = open_network(Path(network).read_bytes(), SessionOptions(threads=threads, device="cpu"))
    (name,) = opened.inputs
    volume = np.random.default_rng(0).random((1, 1, *window_xyz), np.float32)
    opening_mib = peak_mib()
    # Reading the file takes more than a small window does; its peak must not stand in for that of the run.
    Path("/proc/self/clear_refs").write_text("5")
    before, began = _cpu_s(), time.perf_counter()
    opened({name: volume})
    seconds = time.perf_counter() - began
    return {"seconds": {"window": seconds}, "cpu_s": _cpu_s() - before, "run_mib": peak_mib(),
            "opening_mib": opening_mib}  # fmt: skip


def lung_mask_quality(scan: str) -> Result:
    """Low resolution against full; see `tests.benchmarks.mask_quality`."""
    from tests.benchmarks.mask_quality import compared

    return compared(Path(scan))


def machine_ceilings(threads: int, quick: bool) -> Result:
    """Copy, gemm and convolution speeds; see `tests.benchmarks.ceilings`."""
    from tests.benchmarks.ceilings import measured

    return measured(threads, quick=quick)


def network_flops(model: str, prepared_zyx: list[int]) -> Result:
    """FLOPs of the shipped networks; see `tests.benchmarks.flops`."""
    from tests.benchmarks.flops import model_flops

    return model_flops(Path(model), tuple(prepared_zyx))


def direct(model: str, threads: int) -> Result:
    """The pipeline without HTTP in a process that stays: a series on each line of input, a line of JSON for each."""
    from app.api.schemas import result_from_findings
    from app.inference.model_store import load_model, warm_up
    from app.inference.network import SessionOptions
    from app.inference.pipeline import AnalysisOptions, analyse

    loaded = load_model(Path(model), SessionOptions(threads=threads, device="cpu"))
    warm_up(loaded)
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        findings = analyse(Path(line.strip()), loaded, AnalysisOptions(threads=threads))
        answer = result_from_findings(findings).model_dump_json()
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "bytes": len(answer), "peak_mib": peak_mib()}), flush=True)
    return {}


class _Timed:
    """A network that counts its calls and seconds; everything else is the network's own."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.seconds, self.calls, self.slices = 0.0, 0, 0

    def __call__(self, inputs: Any, *arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return self._network(inputs, *arguments, **named)
        finally:
            self.seconds += time.perf_counter() - began
            self.calls += 1
            if "crops" in inputs:
                self.slices += inputs["crops"].shape[0] * inputs["crops"].shape[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


def _cpu_s() -> float:
    """Seconds that all threads of this process, and the children it has buried, have worked."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


PROBES: dict[str, Callable[..., Result]] = {
    probe.__name__: probe
    for probe in (analysis, reading, scan_facts, path_to_candidates, retinanet, lung_mask_quality, machine_ceilings,
                  network_flops, direct)
}  # fmt: skip


def main() -> None:
    """Run one probe."""
    result = PROBES[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps({**result, "peak_mib": max(result.get("opening_mib", 0.0), peak_mib())}))


if __name__ == "__main__":
    main()
