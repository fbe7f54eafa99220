"""FLOPs of an ONNX graph: every convolution and matrix product, from the shapes that the runtime really makes.

One multiply-add counts as two. Normalisation, activations, resizing and decoding are left out: beside convolutions
they are bytes, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from app.inference.manifest import load_manifest

_COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def flops(model: bytes, inputs: Mapping[str, Sequence[int]]) -> int:
    """FLOPs of one run on float32 inputs of these shapes."""
    return sum(each["flops"] for each in layers(model, inputs))


def layers(model: bytes, inputs: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Operator, output shape, channels and FLOPs of each counted node; runs the graph once on zeros."""
    graph = onnx.load_from_string(model)
    counted = [node for node in graph.graph.node if node.op_type in _COUNTED]
    known = {output.name for output in graph.graph.output}
    wanted = {name for node in counted for name in (node.input[0], node.input[1], node.output[0])}
    made = {name for node in graph.graph.node for name in node.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted((wanted & made) - known))
    options = onnxruntime.SessionOptions()
    # Fused operators would have other outputs than the file says.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: np.zeros(shape, np.float32) for name, shape in inputs.items()})
    shapes = dict(zip(names, (value.shape for value in values), strict=True))
    shapes.update({each.name: tuple(each.dims) for each in graph.graph.initializer})
    shapes.update({name: tuple(shape) for name, shape in inputs.items()})
    return [_layer(node, shapes) for node in counted]


def _layer(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    data, weight, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":  # weight (out, in / groups, kernel)
        count = 2 * prod(output) * prod(weight[1:])
    elif node.op_type == "ConvTranspose":  # weight (in, out / groups, kernel)
        count = 2 * prod(data) * prod(weight[1:])
    else:
        transposed = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        count = 2 * prod(output) * data[-2 if transposed else -1]
    return {"operator": node.op_type, "output": list(output), "weight": list(weight), "flops": int(count)}


def model_flops(folder: Path, prepared_zyx: Sequence[int]) -> dict[str, Any]:
    """GFLOPs of the shipped detector on a prepared array, and of the characteriser on one axial slice, with and
    without its mask.

    The detector is counted on a small cube and scaled: all of it is convolution, so it follows the voxels.
    """
    manifest = load_manifest(folder)
    side = max(32, 2 * manifest.preprocessing.shape_multiple)
    small = layers((folder / manifest.detector.file).read_bytes(), {"volume": (1, 1, side, side, side)})
    scale = prod(prepared_zyx) / side**3
    by_channels: dict[str, float] = {}
    for each in small:
        label = f"{each['weight'][1]} to {each['weight'][0]}"
        by_channels[label] = by_channels.get(label, 0.0) + each["flops"] * scale / 1e9
    crop = manifest.characteriser.crop
    crops = (1, len(crop.slice_offsets_mm), crop.size_px, crop.size_px)
    whole = manifest.characteriser
    outlining, judging = (
        flops((folder / entry.file).read_bytes(), {"crops": crops}) / crops[1] / 1e9
        for entry in (whole, whole.verdict or whole)
    )
    return {
        "detector_gflop": sum(by_channels.values()),
        "detector_gflop_by_channels": by_channels,
        "detector_flop_per_voxel": sum(each["flops"] for each in small) / side**3,
        "outlining_gflop_per_slice": outlining,
        "judging_gflop_per_slice": judging,
    }
