"""The benchmarks' own arithmetic, and that a part of them runs; no time is asserted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.benchmarks import monai_retinanet, parts, report
from tests.benchmarks.flops import flops, model_flops
from tests.benchmarks.measuring import Probe, in_turn
from tests.benchmarks.scaling import line, monai_scan
from tests.benchmarks.scans import Scans
from tests.benchmarks.tables import reading

MACHINE = {
    "date": "2026-01-01 00:00 UTC", "commit": "abc1234", "uncommitted_changes": False, "cores": 2, "cpu": "Some CPU",
    "flags": ["avx2"], "memory_gib": 8.0, "gpus": 0, "load_before": 0.1, "python": "3.11", "packages": {"numpy": "2"},
}  # fmt: skip


def test_flops_of_convolutions_and_products_are_those_worked_out_by_hand() -> None:
    weights = {"w": np.zeros((4, 2, 3, 3, 3), np.float32), "g": np.zeros((16, 5), np.float32)}
    nodes = [
        helper.make_node("Conv", ["v", "w"], ["c"], kernel_shape=[3] * 3, pads=[1] * 6, strides=[2] * 3),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Concat", ["f", "f", "f", "f"], ["wide"], axis=1),
        helper.make_node("Gemm", ["wide", "g"], ["out"]),
    ]
    model = _model(nodes, weights, [1, 2, "z", "y", "x"], [1, 5])
    convolution = 2 * (4 * 4 * 3 * 2) * (2 * 27)  # outputs (4 channels of 4 x 3 x 2) times what each one sums
    assert flops(model, {"v": (1, 2, 8, 6, 4)}) == convolution + 2 * 5 * 16


def test_flops_of_the_detector_follow_its_voxels(tiny_model_store: Path) -> None:
    folder = tiny_model_store / "tiny" / "1.0.0"
    small, large = (model_flops(folder, shape) for shape in ((32, 32, 32), (64, 32, 32)))
    assert large["detector_gflop"] == pytest.approx(2 * small["detector_gflop"])


def test_the_table_of_the_reading_part_has_a_row_for_each_syntax(tmp_path: Path, tiny_model_store: Path) -> None:
    class OneSyntax(Scans):
        def syntaxes(self, slices: int) -> dict[str, Path]:
            return {"Explicit VR Little Endian": self.chest(slices)}

    plan = parts.Plan(OneSyntax(tmp_path, matrix=80), tiny_model_store, threads=1, runs=2, slices=(24,), quick=True)
    part = parts.reading(plan)
    (table,) = reading(part)
    assert [row[0] for row in table.rows] == ["Explicit VR Little Endian"]
    runs = part["runs"]["Explicit VR Little Endian"]
    assert [run["voxels"] for run in runs] == [24 * 80 * 80] * 2
    assert all(run["peak_mib"] > 10 for run in runs)
    assert table.markdown().count("| Explicit VR Little Endian |") == 1
    assert "Explicit VR Little Endian" in table.text()


def test_what_fails_in_its_process_is_shown() -> None:
    with pytest.raises(SystemExit, match="FileNotFoundError"):
        in_turn([Probe("a file that is not there", "reading", {"series": "/nowhere"})], 1)


def test_windows_of_monai_cover_a_scan_with_a_quarter_overlap() -> None:
    assert monai_retinanet.windows_of((512, 512, 192)) == 1
    assert monai_retinanet.windows_of((510, 510, 300)) == 2  # steps of 144: windows end at 192 and beyond 300
    assert monai_retinanet.windows_of((513, 512, 336)) == 4


def test_monais_scan_is_extrapolated_by_voxels_and_on_a_line() -> None:
    part = {
        "windows_xyz": [[64, 64, 64], [128, 64, 64]], "own_window_xyz": [256, 64, 64], "windows_a_scan": 3,
        "runs": {
            "64x64x64": [{"seconds": {"window": 9.0}, "run_mib": 300.0}],
            "128x64x64": [{"seconds": {"window": 10.0}, "run_mib": 500.0}],
            "ours": [{"seconds": {"total": 2.0}, "peak_mib": 90.0, "children_mib": 10.0}],
        },
    }  # fmt: skip
    found = monai_scan(part)
    assert (found.window_s, found.scan_s, found.time_ratio) == (20.0, 60.0, 30.0)
    assert found.window_mib == pytest.approx(900.0)
    assert found.memory_ratio == pytest.approx(9.0)


def test_a_line_knows_how_straight_its_points_are() -> None:
    straight, bent = line([1, 2, 3], [5, 7, 9]), line([1, 2, 3], [5, 9, 5])
    assert (straight.intercept, straight.slope, straight.r_squared) == pytest.approx((3.0, 2.0, 1.0))
    assert bent.r_squared < 0.1


def test_the_document_has_every_block_and_goals_are_judged_by_what_was_measured() -> None:
    text = (report_root() / "docs" / "performance.md").read_text()
    written = report.documented(text, _result(overhead_percent=4.0))
    assert "HTTP on top of the pipeline called directly: <= 5 % | +4.0 % | **met** |" in written
    slower = report.documented(written, _result(overhead_percent=6.0))
    assert "HTTP on top of the pipeline called directly: <= 5 % | +6.0 % | **not met** |" in slower
    assert "+4.0 %" not in slower
    assert "GPU: <= 0.3 s for 300 slices |  | not measured |" in slower


def test_a_quick_run_is_not_written_down() -> None:
    with pytest.raises(ValueError, match="quick"):
        report.documented("", {**_result(0.0), "quick": True})


def test_parts_of_several_machines_are_joined_and_say_so() -> None:
    elsewhere = {"machine": {**MACHINE, "gpus": 1}, "quick": False, "parts": {"gpu": {"left_out": "broken"}}}
    result = report.joined([_result(1.0), elsewhere])
    assert set(result["parts"]) == {"http", "gpu"}
    assert "1 GPU" in result["parts"]["gpu"]["elsewhere"]
    assert result["machine"] == MACHINE


def report_root() -> Path:
    return Path(__file__).resolve().parents[1]


def _result(overhead_percent: float) -> dict[str, Any]:
    http = {
        "slices": 300,
        "cold_start": [{"seconds": 1.0, "idle_mib": 200.0}],
        "overhead": {
            "direct_s": [2.0], "post_s": [2.1], "pipeline_within_post_s": [2.0], "overhead_percent": overhead_percent,
            "direct_mib": 800.0, "service_mib": 900.0,
        },
        "side_by_side": {"processes": 2, "seconds": 4.0, "studies_per_hour": 1800.0, "peak_mib": 1600.0},
    }  # fmt: skip
    return {"machine": MACHINE, "quick": False, "parts": {"http": http}}


def _model(nodes: list[Any], weights: dict[str, np.ndarray], given: list[Any], made: list[int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
