"""Exported graphs in cheaper arithmetic: static int8 with its scales written into the graph, and float16.

The first convolution and the last ones stay as they are: one sees the grey values, the others make the figures that
leave the network, and both are cheap. All that lies between them is quantised together, so that values stay int8 from
one convolution to the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

QUANTISED_OPERATORS = ("Conv", "Relu", "Add", "Resize", "Concat", "MaxPool")

LEAST_SHARED = 256
"""Elements of a constant that is worth having once only."""


def int8(model: bytes, input_name: str, samples: Sequence[NDArray[np.float32]]) -> bytes:
    """Static int8: weights by output channel, activations by tensor, ranges from the samples.

    Parameters
    ----------
    model
        An exported fp32 graph.
    input_name
        Its input.
    samples
        What it may see, of training patients and lungs only; each one run.
    """
    with tempfile.TemporaryDirectory(prefix="lungnodule-int8-") as scratch:
        folded, made = Path(scratch) / "folded.onnx", Path(scratch) / "int8.onnx"
        graph = _folded(model, folded)
        quantize_static(
            str(folded),
            str(made),
            _Samples(input_name, samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED_OPERATORS),
            nodes_to_quantize=between_first_and_last_convolutions(graph),
            calibrate_method=CalibrationMethod.MinMax,
        )
        return _written(onnx.load(made))


def float16(model: bytes) -> bytes:
    """Float16 from the first to the last convolutions; inputs, outputs and arithmetic on coordinates stay float32."""
    with tempfile.TemporaryDirectory(prefix="lungnodule-float16-") as scratch:
        graph = _folded(model, Path(scratch) / "folded.onnx")
    inside = set(between_first_and_last_convolutions(graph))
    inside |= {node.name for node in graph.graph.node if node.op_type == "Conv"}
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    made = {output for node in graph.graph.node if node.name in inside for output in node.output}
    nodes: list[onnx.NodeProto] = []
    halves: dict[str, onnx.TensorProto] = {}
    cast_already: set[str] = set()
    for node in graph.graph.node:
        for place, name in enumerate(node.input):
            if node.name in inside and (place == 0 or node.op_type != "Resize") and name and name not in made:
                node.input[place] = f"{name}:float16"
                if name in constants:
                    values = onnx.numpy_helper.to_array(constants[name]).astype(np.float16)
                    halves[name] = onnx.numpy_helper.from_array(values, f"{name}:float16")
                elif f"{name}:float16" not in cast_already:
                    nodes.append(_cast(name, onnx.TensorProto.FLOAT16))
                    cast_already.add(f"{name}:float16")
            elif node.name not in inside and name in made:
                node.input[place] = f"{name}:float"
                if f"{name}:float" not in cast_already:
                    nodes.append(_cast(name, onnx.TensorProto.FLOAT))
                    cast_already.add(f"{name}:float")
        nodes.append(node)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(halves.values())
    used = {name for node in nodes for name in node.input}
    unused = [tensor for tensor in graph.graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.graph.initializer.remove(tensor)
    return _written(_without_twins(graph))


def between_first_and_last_convolutions(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes after the first convolutions and before the last that can be made cheaper."""
    nodes = list(graph.graph.node)
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    first = [node for node in convolutions if not any(n.op_type == "Conv" for n in _upstream(graph, [node])[1:])]
    last = [node for node in convolutions if not _has_later_convolution(graph, node)]
    after = {node.name for node in _downstream(graph, first)} - {node.name for node in first}
    before = {node.name for node in _upstream(graph, last)} - {node.name for node in last}
    return [node.name for node in nodes if node.name in after & before and node.op_type in QUANTISED_OPERATORS]


def _cast(name: str, to: int) -> onnx.NodeProto:
    suffix = "float16" if to == onnx.TensorProto.FLOAT16 else "float"
    return onnx.helper.make_node("Cast", [name], [f"{name}:{suffix}"], f"{name}:to_{suffix}", to=to)


class _Samples(CalibrationDataReader):  # type: ignore[misc]
    """Samples as the calibrator asks for them."""

    def __init__(self, input_name: str, samples: Iterable[NDArray[np.float32]]) -> None:
        self._rows: Iterator[dict[str, NDArray[np.float32]]] = iter([{input_name: sample} for sample in samples])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._rows, None)


def _folded(model: bytes, path: Path) -> onnx.ModelProto:
    """Batch normalisation folded into convolutions and constants computed, by ONNX Runtime itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(path)
    add_pre_process_metadata(graph)
    onnx.save(graph, path)
    return graph


def _downstream(graph: onnx.ModelProto, start: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes themselves and all that depend on them."""
    reached = list(start)
    outputs = {output for node in start for output in node.output}
    for node in graph.graph.node:  # in topological order
        if node not in reached and outputs & set(node.input):
            reached.append(node)
            outputs.update(node.output)
    return reached


def _upstream(graph: onnx.ModelProto, start: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes themselves and all that they depend on."""
    reached = list(start)
    inputs = {value for node in start for value in node.input}
    for node in reversed(graph.graph.node):
        if node not in reached and inputs & set(node.output):
            reached.append(node)
            inputs.update(node.input)
    return reached


def _has_later_convolution(graph: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    return any(later.op_type == "Conv" for later in _downstream(graph, [node])[1:])


def _without_twins(model: onnx.ModelProto) -> onnx.ModelProto:
    """One copy of equal weights: folding gave each of the two mirrored views some of its own.

    Not for int8: ONNX Runtime fails to rewrite shared weights for processors without VNNI.
    """
    first: dict[tuple[Any, ...], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), values.tobytes())
        if values.size < LEAST_SHARED:
            kept.append(tensor)
        elif key in first:
            renamed[tensor.name] = first[key]
        else:
            first[key] = tensor.name
            kept.append(tensor)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return model


def _written(model: onnx.ModelProto) -> bytes:
    """Checked, and without what exporters note about themselves."""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return cast(bytes, model.SerializeToString(deterministic=True))
