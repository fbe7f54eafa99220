"""The parts of the benchmark. Each takes the plan and gives back what it measured, as plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.inference.manifest import load_manifest
from app.inference.network import gpu_count
from app.inference.openvino_network import has_openvino
from tests.benchmarks import monai_retinanet, service
from tests.benchmarks.measuring import Probe, in_own_process, in_turn
from tests.benchmarks.scans import Scans, real_scans

Part = dict[str, Any]

REAL = "LIDC-IDRI-0001, 133 slices, zip"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    scans: Scans
    model: Path
    threads: int
    runs: int
    slices: tuple[int, ...] = (133, 300, 600)
    tall: tuple[int, ...] = (100, 400, 1000)
    cap_mib: int = 256
    """Memory of one detector pass, for the part that shows what a cap does."""
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)
    windows_xyz: tuple[tuple[int, int, int], ...] = ((128, 128, 64), (192, 192, 64))
    """For MONAI's network; the cost of its own window is extrapolated from them."""
    quick: bool = False

    @property
    def usual(self) -> int:
        """Slices of the scan that most parts use."""
        return 300 if 300 in self.slices else self.slices[0]

    @property
    def usual_series(self) -> Path:
        """That scan, uncompressed."""
        return self.scans.chest(self.usual)

    def analysis(self, label: str, series: Path, **more: Any) -> Probe:
        """The service's pipeline in a fresh process."""
        return Probe(label, "analysis", {**self._of(series), **more})

    def facts(self, series: Path) -> dict[str, Any]:
        """Size of a scan; see `tests.benchmarks.probes.scan_facts`."""
        return in_own_process(Probe("facts", "scan_facts", {"series": str(series), "model": str(self.model)}))

    def candidates(self, path: str, series: Path) -> Probe:
        """One of the three paths of `tests.benchmarks.paths`."""
        return Probe(path, "path_to_candidates", {**self._of(series), "path": path})

    def _of(self, series: Path) -> dict[str, Any]:
        return {"series": str(series), "model": str(self.model), "threads": self.threads}


def stages(plan: Plan) -> Part:
    """Seconds per stage by number of slices, and of a real series where there is one."""
    series = {f"{count} slices": plan.scans.chest(count) for count in plan.slices}
    if "LIDC-IDRI-0001" in real_scans():
        series[REAL] = real_scans()["LIDC-IDRI-0001"]
    facts = {label: plan.facts(path) for label, path in series.items()}
    runs = in_turn([plan.analysis(label, path) for label, path in series.items()], plan.runs)
    return {"facts": facts, "runs": runs, "usual": f"{plan.usual} slices"}


def reading(plan: Plan) -> Part:
    """The read stage by transfer syntax; the stages after it do not depend on the syntax."""
    series = plan.scans.syntaxes(plan.usual)
    probes = [Probe(label, "reading", {"series": str(path)}) for label, path in series.items()]
    sizes = {label: sum(file.stat().st_size for file in path.iterdir()) / 2**20 for label, path in series.items()}
    return {"runs": in_turn(probes, plan.runs), "received_mib": sizes, "slices": plan.usual}


def baselines(plan: Plan) -> Part:
    """Files to candidates on three paths with the same detector."""
    probes = [plan.candidates(path, plan.usual_series) for path in ("ours", "simpleitk", "naive")]
    return {"runs": in_turn(probes, plan.runs), "truth": plan.scans.truth(plan.usual), "slices": plan.usual}


def monai(plan: Plan) -> Part:
    """MONAI's network by window, in turn with our whole path; their whole CT is computed."""
    if not monai_retinanet.installed():
        return {"left_out": "torch or monai is not installed (the training extra)"}
    probes = [plan.analysis("ours", plan.usual_series)]
    for window in plan.windows_xyz:
        name = "x".join(map(str, window))
        path = monai_retinanet.exported(plan.scans.folder, window)
        probes.append(
            Probe(name, "retinanet", {"network": str(path), "window_xyz": list(window), "threads": plan.threads})
        )
    facts = plan.facts(plan.usual_series)
    volume = monai_retinanet.shape_at_its_spacing(tuple(facts["shape_zyx"]), facts["spacing_zyx_mm"])
    return {
        "runs": in_turn(probes, plan.runs),
        "windows_xyz": [list(window) for window in plan.windows_xyz],
        "own_window_xyz": list(monai_retinanet.WINDOW_XYZ),
        "scan_xyz": list(volume),
        "windows_a_scan": monai_retinanet.windows_of(volume),
        "slices": plan.usual,
    }


def http(plan: Plan) -> Part:
    """Cold start; the pipeline directly against POST /v1/predict; processes of one thread side by side."""
    pairs = 1 if plan.quick else max(5, plan.runs)
    return {
        "cold_start": service.cold_starts(plan.model, plan.threads, plan.runs),
        "overhead": service.http_against_direct(plan.usual_series, plan.model, plan.threads, pairs),
        "side_by_side": service.processes_of_one_thread(plan.usual_series, plan.model, plan.threads),
        "slices": plan.usual,
    }


def clients(plan: Plan) -> Part:
    """Many clients at once against one service."""
    return {
        "rounds": service.clients_at_once(plan.usual_series, plan.model, plan.threads, plan.clients),
        "slices": plan.usual,
        "threads": plan.threads,
    }


def variants(plan: Plan) -> Part:
    """fp32 and every variant of the networks that the manifest names for this device, with its stated accuracy."""
    manifest = load_manifest(plan.model)
    device = "gpu" if gpu_count() else "cpu"
    entries = {"detector": manifest.detector.variants, "characteriser": manifest.characteriser.variants}
    named = {
        name: []
        for variants in entries.values()
        for name, v in variants.items()
        if v.device in (device, "cpu") and (v.runtime != "openvino" or has_openvino())
    }
    if not named:
        return {"left_out": "the manifest names no variant that can run here"}
    for name, figures in named.items():
        for role, variants in entries.items():
            if name in variants:
                figures += [{"network": role, **each.model_dump()} for each in variants[name].figures]
    series = {"": plan.usual_series}
    if "LIDC-IDRI-0001" in real_scans():
        series[f", {REAL}"] = real_scans()["LIDC-IDRI-0001"]
    probes = [
        plan.analysis(f"{name}{which}", path, precision=name, device="auto")
        for which, path in series.items()
        for name in ("fp32", *named)
    ]
    return {"runs": in_turn(probes, plan.runs), "accuracy": named, "slices": plan.usual}


def gpu(plan: Plan) -> Part:
    """CPU and GPU in turn, each also warm; says so where there is no GPU."""
    if gpu_count() == 0:
        return {"left_out": "no GPU here"}
    again = 1 if plan.quick else 5
    probes = [plan.analysis(device, plan.usual_series, device=device, again=again) for device in ("cpu", "cuda")]
    rounds = service.clients_at_once(plan.usual_series, plan.model, plan.threads, plan.clients, device="cuda")
    return {"runs": in_turn(probes, plan.runs), "rounds": rounds, "slices": plan.usual}


def linearity(plan: Plan) -> Part:
    """Time and memory by slices and lung volume: one chest stretched along z; the longest also under a tile cap."""
    series = {str(count): plan.scans.tall(count, plan.usual) for count in plan.tall}
    facts = {label: plan.facts(path) for label, path in series.items()}
    # No cap at all, so that what grows can be seen; then the cap, where it matters most.
    probes = [plan.analysis(label, path, uncapped=True) for label, path in series.items()]
    longest = str(max(plan.tall))
    probes.append(plan.analysis(f"{longest} capped", series[longest], memory_mib=plan.cap_mib))
    return {"facts": facts, "runs": in_turn(probes, min(2, plan.runs)), "cap_mib": plan.cap_mib, "longest": longest}


def mask(plan: Plan) -> Part:
    """The low-resolution lung mask against full resolution, on phantoms and on real scans."""
    scans = {f"phantom, {plan.usual} slices": plan.usual_series}
    if not plan.quick:
        scans |= real_scans()
    return {
        "scans": {
            label: in_own_process(Probe(label, "lung_mask_quality", {"scan": str(path)}))
            for label, path in scans.items()
        }
    }


def floor(plan: Plan) -> Part:
    """What the machine allows: copy, gemm and convolution speeds, FLOPs of the networks, and one analysis beside."""
    ceilings = {"threads": plan.threads, "quick": plan.quick}
    facts = plan.facts(plan.usual_series)
    counted = {"model": str(plan.model), "prepared_zyx": facts["prepared_zyx"]}
    return {
        "ceilings": in_own_process(Probe("ceilings", "machine_ceilings", ceilings)),
        "flops": in_own_process(Probe("flops", "network_flops", counted)),
        "facts": facts,
        "analysis": in_own_process(plan.analysis("analysis", plan.usual_series)),
        "slices": plan.usual,
    }


PARTS: dict[str, Callable[[Plan], Part]] = {
    part.__name__: part
    for part in (stages, reading, baselines, monai, http, clients, variants, gpu, linearity, mask, floor)
}
