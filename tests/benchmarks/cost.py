"""The cost model: what each stage cannot go below on this machine, how far it is from that, and sizing."""

from __future__ import annotations

from math import prod
from typing import Any

from tests.benchmarks.measuring import summary
from tests.benchmarks.tables import Table

Part = dict[str, Any]


def floors_s(part: Part) -> dict[str, float]:
    """Least seconds of each stage: bytes over the copy speed, FLOPs over the fastest convolution measured."""
    facts, flops, ceilings = part["facts"], part["flops"], part["ceilings"]
    copy = ceilings["copy_gb_per_s_one_thread"] * 1e9
    conv = max(ceilings["conv_gflop_per_s"].values())
    volume_bytes = 2 * prod(facts["shape_zyx"])
    prepared = prod(facts["prepared_zyx"])
    box_share = min(1.0, _box_voxels(facts) / prod(facts["shape_zyx"]))
    return {
        "read": 2 * volume_bytes / copy,
        # Every second sample of every second row and slice is looked at; a cache line holds 32 of them.
        "lungs": volume_bytes / 2 / copy,
        "prepare": (box_share * volume_bytes + 4 * prepared) / copy,
        "detect": flops["detector_gflop"] / conv,
        "characterise": _characteriser_gflop(part) / conv,
    }


def _characteriser_gflop(part: Part) -> float:
    """All candidates are judged, the likely ones outlined."""
    flops, analysis = part["flops"], part["analysis"]
    judged = flops["judging_gflop_per_slice"] * analysis["judged_slices"]
    return float(judged + flops["outlining_gflop_per_slice"] * analysis["outlined_slices"])


def _box_voxels(facts: Part) -> float:
    """Scan voxels under the prepared array, padding included."""
    prepared_mm3 = float(prod(facts["prepared_zyx"])) * facts["prepared_mm"] ** 3
    return prepared_mm3 / prod(facts["spacing_zyx_mm"])


def floor(part: Part) -> list[Table]:
    """Ceilings of the machine, then stages against their floors."""
    ceilings, flops, measured = part["ceilings"], part["flops"], part["analysis"]
    speeds = [["memory copy, one thread, read + written", f"{ceilings['copy_gb_per_s_one_thread']:.1f} GB/s"]]
    speeds += [[f"sgemm in ONNX Runtime, {n} threads", f"{v:.0f} GFLOP/s"]
               for n, v in ceilings["gemm_gflop_per_s"].items()]  # fmt: skip
    speeds += [[f"conv 3x3x3, {n} channels, {ceilings['threads']} threads", f"{v:.0f} GFLOP/s"]
               for n, v in ceilings["conv_gflop_per_s"].items()]  # fmt: skip
    z, y, x = part["facts"]["prepared_zyx"]
    arithmetic = {
        "detect": (flops["detector_gflop"], measured["detector_s"]),
        "characterise": (_characteriser_gflop(part), measured["characteriser_s"]),
    }
    rows = []
    for stage, floor_s in floors_s(part).items():
        taken = measured["seconds"][stage]
        gflop, network_s = arithmetic.get(stage, (0.0, 0.0))
        rows.append([stage, f"{taken:.3f}", f"{floor_s:.3f}", f"{taken / floor_s:.1f} x" if floor_s else "",
                     f"{gflop:.0f}" if gflop else "", f"{gflop / network_s:.0f}" if gflop else ""])  # fmt: skip
    size = f"{part['facts']['received_mib']} MiB received, {z} x {y} x {x} voxels prepared"
    detector = f"{flops['detector_flop_per_voxel'] / 1e3:.1f} kFLOP a voxel"
    judging, outlining = flops["judging_gflop_per_slice"], flops["outlining_gflop_per_slice"]
    crops = f"{measured['judged_slices']} crop slices judged, {measured['outlined_slices']} outlined"
    notes = [
        f"{part['slices']} slices, {size}, {crops}.",
        f"The detector takes {detector}; a crop slice takes {judging:.2f} GFLOP to judge, {outlining:.2f} to outline.",
        "Floors are computed: bytes over the copy speed of one thread, FLOPs over the fastest convolution above.",
    ]
    columns = ["stage", "seconds", "floor, s", "away", "GFLOP", "GFLOP/s reached"]
    return [Table("What the machine can do", ["what", "speed"], speeds), Table("Floors", columns, rows, notes)]


def sizing(parts: dict[str, Part], cores: int) -> list[Table]:
    """Studies an hour, measured where a run did it, computed where it follows from one."""
    rows = []
    if "stages" in parts:
        for label, runs in parts["stages"]["runs"].items():
            cpu = summary([run["cpu_s"] for run in runs]).median
            rows.append([f"{label}: CPU seconds of one analysis", f"{cpu:.2f}", f"{3600 / cpu:.0f}", "computed"])
    if "clients" in parts:
        best = max(parts["clients"]["rounds"], key=lambda each: each["per_hour"])
        rows.append([f"one service, {best['clients']} clients", "", f"{best['per_hour'] / cores:.0f}", "measured"])
    if "http" in parts:
        side = parts["http"]["side_by_side"]
        rows.append([f"{side['processes']} processes of one thread", f"{side['seconds']:.2f}",
                     f"{side['studies_per_hour'] / cores:.0f}", "measured"])  # fmt: skip
    if "gpu" in parts and "runs" in parts["gpu"]:
        warm = [s for run in parts["gpu"]["runs"]["cuda"] for s in run["warm_s"]]
        rows.append(["one GPU, one at a time, warm", f"{summary(warm).median:.2f}",
                     f"{3600 / summary(warm).median:.0f} a GPU", "computed"])  # fmt: skip
    return [Table("Sizing", ["what", "seconds", "studies/h a core", "how"], rows)] if rows else []
