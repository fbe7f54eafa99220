"""Characterisers of another make, by hand: a few nodes each, so that every answer can be worked out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.imaging.preprocessing import CropSpec
from app.phantom.reference import reference_digest
from tests.tiny_model import OPSET, PREPROCESSING, sha256_of, write_tiny_model

SLICE = CropSpec(spacing_mm=1.0, size_px=32, slice_offsets_mm=(0.0,), window_hu=(-1000.0, 400.0))
BLOCK = CropSpec(spacing_mm=1.5, size_px=16, slice_offsets_mm=tuple(1.5 * (n - 8) for n in range(16)), along_z="linear")
SLICE_ENTRY: dict[str, Any] = {
    "kind": "axial-2d",
    "crop": SLICE.model_dump(mode="json"),
    "input": {"name": "image", "layout": "nhwc"},
    "nodule": {"output": "bright", "activation": "logit"},
    "malignancy": {"output": "classes", "activation": "softmax", "column": 1},
}
BLOCK_ENTRY: dict[str, Any] = {
    "kind": "crops-3d",
    "crop": BLOCK.model_dump(mode="json"),
    "input": {"name": "image", "layout": "ncdhw"},
    "nodule": {"output": "bright", "activation": "logit"},
}


def write_foreign_model(
    store: Path, entry: dict[str, Any], network: onnx.ModelProto, *, name: str = "foreign", version: str = "1.0.0"
) -> Path:
    """The tiny detector with this network behind it, in ``store/name/version``."""
    folder = write_tiny_model(store, name=name, version=version)
    (folder / "foreign.onnx").write_bytes(network.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    crop = CropSpec.model_validate(entry["crop"])
    manifest["characteriser"] = {**entry, "file": "foreign.onnx", "sha256": sha256_of(folder / "foreign.onnx")}
    manifest["preprocessing_digest"] = reference_digest(PREPROCESSING, crop)
    if "malignancy" not in entry:
        manifest["malignancy"] = None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def brightness_network(shape: list[int | str], middle: list[tuple[int, int]]) -> onnx.ModelProto:
    """``bright`` (n, 1): 20 * (mean of the middle - 0.4), a logit; ``classes`` (n, 2): (0, 2 * bright).

    ``middle`` are first and last index of each axis but the first.
    """
    axes = list(range(1, len(shape)))
    constants = {
        "from": np.array([low for low, _ in middle]),
        "to": np.array([high for _, high in middle]),
        "axes": np.array(axes),
        "half_way": np.array(0.4, np.float32),
        "slope": np.array(20.0, np.float32),
        "column": np.array([[0.0, 2.0]], np.float32),
        "one": np.array([-1, 1]),
    }
    nodes = [
        helper.make_node("Slice", ["image", "from", "to", "axes"], ["centre"]),
        helper.make_node("ReduceMean", ["centre", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "half_way"], ["above"]),
        helper.make_node("Mul", ["above", "slope"], ["logit"]),
        helper.make_node("Reshape", ["logit", "one"], ["bright"]),
        helper.make_node("MatMul", ["bright", "column"], ["classes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("bright", TensorProto.FLOAT, [shape[0], 1]),
            helper.make_tensor_value_info("classes", TensorProto.FLOAT, [shape[0], 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model


def slice_network(batch: int | str = "n") -> onnx.ModelProto:
    """For `SLICE_ENTRY`."""
    return brightness_network([batch, 32, 32, 1], [(14, 19), (14, 19), (0, 1)])


def block_network() -> onnx.ModelProto:
    """For `BLOCK_ENTRY`."""
    return brightness_network(["n", 1, 16, 16, 16], [(0, 1), (7, 10), (7, 10), (7, 10)])
