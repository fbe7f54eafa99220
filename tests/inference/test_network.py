import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.imaging.errors import ModelError
from app.inference import network as network_module
from app.inference.network import CPU, CUDA, TENSORRT, SessionOptions, open_network, run_bound, run_plain

CPU_ONLY = SessionOptions(device="cpu", threads=1)


def doubler(*, external: str | None = None) -> bytes:
    """y = 2 x over rows of four numbers; the matrix in a file beside the model if asked for.

    A matrix, because ONNX Runtime itself refuses other weights of models from bytes, if only by chance.
    """
    twice = numpy_helper.from_array(2 * np.eye(4, dtype=np.float32), "twice")
    if external is not None:
        twice.ClearField("raw_data")
        twice.data_location = TensorProto.EXTERNAL
        twice.external_data.add(key="location", value=external)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "twice"], ["y"])], "doubler", [x], [y], [twice])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return model.SerializeToString()


def test_a_network_is_a_function_of_named_arrays():
    run = open_network(doubler(), CPU_ONLY)
    assert run({"x": np.ones((2, 4), np.float32)})["y"].tolist() == [[2.0] * 4] * 2
    assert (run.inputs, run.outputs) == ({"x": ("n", 4)}, {"y": ("n", 4)})


def test_the_provider_is_the_one_the_session_reports():
    run = open_network(doubler(), CPU_ONLY)
    assert run.execution_provider == run.session.get_providers()[0] == CPU
    assert run.notices == ()


def without_gpu(monkeypatch):
    monkeypatch.setattr(network_module, "gpu_count", lambda: 0)


def with_a_gpu_that_onnxruntime_cannot_use(monkeypatch):
    monkeypatch.setattr(network_module, "gpu_count", lambda: 1)
    monkeypatch.setattr(network_module, "available_providers", lambda: [CPU])


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_falling_back_to_the_cpu_is_said(monkeypatch, device):
    without_gpu(monkeypatch)
    run = open_network(doubler(), SessionOptions(device=device, threads=1))
    (notice,) = run.notices
    assert run.execution_provider == CPU
    assert notice.code == "device_fallback"
    assert notice.values == {"device": device, "execution_provider": CPU, "gpu_count": 0}


def test_auto_without_a_gpu_is_no_fallback(monkeypatch):
    without_gpu(monkeypatch)
    assert open_network(doubler(), SessionOptions(device="auto", threads=1)).notices == ()


def test_auto_says_so_when_there_is_a_gpu_it_cannot_use(monkeypatch):
    with_a_gpu_that_onnxruntime_cannot_use(monkeypatch)
    (notice,) = open_network(doubler(), SessionOptions(device="auto", threads=1)).notices
    assert notice.values["gpu_count"] == 1


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "tensorrt"])
@pytest.mark.parametrize("machine", [without_gpu, with_a_gpu_that_onnxruntime_cannot_use])
def test_a_required_gpu_that_cannot_be_used_is_refused(monkeypatch, machine, device):
    machine(monkeypatch)
    with pytest.raises(ModelError, match="A GPU is required") as refused:
        open_network(doubler(), SessionOptions(device=device, require_gpu=True))
    assert refused.value.code == "gpu_required"
    assert refused.value.values["execution_provider"] == CPU


@pytest.mark.parametrize("where", ["beside", "above", "absolute"])
def test_weights_outside_the_model_file_are_refused(tmp_path, monkeypatch, where):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    location = {"beside": "twice.bin", "above": "../twice.bin", "absolute": str(tmp_path / "twice.bin")}[where]
    for place in (folder, tmp_path):
        (place / "twice.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    with pytest.raises(ModelError) as refused:
        open_network(doubler(external=location), CPU_ONLY, name="doubler.onnx")
    assert refused.value.code == "network_invalid"
    assert refused.value.values == {"file": "doubler.onnx"}


@pytest.mark.parametrize("content", [b"", b"garbage", doubler()[:-20]], ids=["empty", "garbage", "truncated"])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(ModelError, match=r"doubler\.onnx is not") as refused:
        open_network(content, CPU_ONLY, name="doubler.onnx")
    assert refused.value.code == "network_invalid"


@pytest.mark.parametrize(
    "inputs",
    [{"x": np.zeros((2, 5), np.float32)}, {"x": np.zeros((2, 4), np.float64)}, {"z": np.zeros((2, 4), np.float32)}],
    ids=["shape", "type", "name"],
)
def test_arrays_that_do_not_fit_are_a_typed_error(inputs):
    with pytest.raises(ModelError) as refused:
        open_network(doubler(), CPU_ONLY)(inputs)
    assert refused.value.code == "inference_failed"
    assert refused.value.values["execution_provider"] == CPU


def test_opening_and_failing_write_nothing_to_the_terminal(tmp_path):
    """Standard output belongs to `--json`; ONNX Runtime logs from C++, so a process of its own is watched."""
    (tmp_path / "doubler.onnx").write_bytes(doubler())
    code = """
import sys, pathlib
from app.imaging.errors import ModelError
from app.inference.network import SessionOptions, open_network
model = pathlib.Path("doubler.onnx").read_bytes()
for device in ("auto", "cpu", "cuda", "tensorrt"):
    open_network(model, SessionOptions(device=device, threads=1))
try:
    open_network(b"garbage", SessionOptions())
except ModelError:
    pass
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_importing_the_module_does_not_import_onnxruntime():
    code = "import sys, app.inference.network; sys.exit('onnxruntime' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_binding_inputs_and_outputs_changes_no_answer():
    """The way a GPU is run, tried on the CPU: a non-contiguous array too."""
    session = open_network(doubler(), CPU_ONLY).session
    rows = np.arange(24, dtype=np.float32).reshape(4, 6).T  # (6, 4), columns first
    (bound,), (plain,) = (run(session, ["y"], {"x": rows}) for run in (run_bound, run_plain))
    np.testing.assert_array_equal(bound, plain)
    np.testing.assert_array_equal(bound, 2 * rows)


def test_a_gpu_run_is_bound_and_its_failures_are_typed(monkeypatch):
    run = replace(open_network(doubler(), CPU_ONLY), execution_provider=CUDA)
    seen = []
    monkeypatch.setattr(network_module, "run_bound", lambda *given: seen.append(given[1]) or run_bound(*given))
    assert run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2.0] * 4]
    assert seen == [["y"]]
    with pytest.raises(ModelError) as refused:
        run({"x": np.ones((1, 5), np.float32)})
    assert refused.value.code == "inference_failed"


def test_what_cuda_and_tensorrt_are_told(tmp_path):
    options = SessionOptions(cudnn_search="exhaustive", gpu_memory_limit_bytes=1 << 30, tensorrt_cache=tmp_path)
    assert network_module._provider_options(CUDA, options) == {
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(1 << 30),
    }
    assert network_module._provider_options(CUDA, SessionOptions())["cudnn_conv_algo_search"] == "HEURISTIC"
    assert network_module._provider_options(TENSORRT, options)["trt_engine_cache_path"] == str(tmp_path)
    assert network_module._provider_options(CPU, options) == {}


@pytest.mark.parametrize("level", ["off", "basic", "extended", "all"])
@pytest.mark.parametrize("arena", [True, False])
@pytest.mark.parametrize("pattern", [True, False])
def test_no_session_option_changes_an_answer(level, arena, pattern):
    options = replace(CPU_ONLY, graph_optimisation=level, memory_arena=arena, reuse_memory_pattern=pattern)
    assert open_network(doubler(), options)({"x": np.ones((2, 4), np.float32)})["y"].tolist() == [[2.0] * 4] * 2
