"""What the machine can do at best: copying memory, matrix products, and convolutions of few and many channels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from app.inference.network import SessionOptions, open_network

CHANNELS = (8, 24, 40, 80, 128)
_MATRIX = 2048
_COPY_BYTES = 256 << 20
_CONV_FLOP = 12e9


def measured(threads: int, *, quick: bool) -> dict[str, Any]:
    """GB/s of a copy (bytes read plus bytes written) and GFLOP/s of ONNX Runtime; the best of several tries."""
    shrink = 8 if quick else 1
    source = np.ones(_COPY_BYTES // shrink, np.uint8)
    target = np.zeros_like(source)
    copied = _best_s(lambda: np.copyto(target, source), 5)
    size = _MATRIX // (4 if quick else 1)
    return {
        "threads": threads,
        "copy_gb_per_s_one_thread": 2 * source.nbytes / copied / 1e9,
        "gemm_gflop_per_s": {
            str(count): 2 * size**3 / _best_s(_gemm(size, count), 3) / 1e9 for count in sorted({1, threads})
        },
        "conv_gflop_per_s": {
            str(channels): _conv_speed(channels, threads, _CONV_FLOP / shrink) for channels in CHANNELS
        },
    }


def _best_s(work: Callable[[], object], tries: int) -> float:
    work()
    best = np.inf
    for _ in range(tries):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return float(best)


def _gemm(size: int, threads: int) -> Callable[[], object]:
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    run = _network([node], {"a": (size, size), "b": (size, size)}, (size, size), {}, threads)
    matrices = {name: np.full((size, size), 1 / size, np.float32) for name in ("a", "b")}
    return lambda: run(matrices)


def _conv_speed(channels: int, threads: int, flop: float) -> float:
    """GFLOP/s of one 3 x 3 x 3 convolution with as many outputs as inputs, on about that many FLOPs."""
    side = max(16, round((flop / (2 * 27 * channels**2)) ** (1 / 3) / 16) * 16)
    shape = (1, channels, side, side, side)
    weights = np.full((channels, channels, 3, 3, 3), 1e-3, np.float32)
    node = helper.make_node("Conv", ["a", "w"], ["c"], kernel_shape=[3] * 3, pads=[1] * 6)
    run = _network([node], {"a": shape}, shape, {"w": weights}, threads)
    volume = {"a": np.ones(shape, np.float32)}
    return 2 * weights.size * side**3 / _best_s(lambda: run(volume), 3) / 1e9


def _network(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    output: tuple[int, ...],
    constants: dict[str, np.ndarray],
    threads: int,
) -> Callable[[dict[str, np.ndarray]], object]:
    graph = helper.make_graph(
        nodes,
        "ceiling",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, output)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return open_network(model.SerializeToString(), SessionOptions(device="cpu", threads=threads))
