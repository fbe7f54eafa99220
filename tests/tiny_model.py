"""A whole model of a few kilobytes: real ONNX graphs with the interfaces of the shipped one, and no training.

The detector marks spots brighter than what surrounds them; the characteriser looks at the brightness of the centre.
Good enough to find the round nodules of a phantom, and every answer can be worked out by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.imaging.preprocessing import CropSpec, PreprocessingSpec
from app.phantom.reference import reference_digest

OPSET = 18
BOX_MM = 10.0
BOXES_PER_PASS = 1024
PREPROCESSING = PreprocessingSpec(spacing_mm=2.0, shape_multiple=8)
CROP = CropSpec()
ATTRIBUTES = ("mean_intensity", "brightest")


def write_tiny_model(
    store: Path, *, name: str = "tiny", version: str = "1.0.0", changes: Mapping[str, Any] | None = None
) -> Path:
    """Write ``store/name/version`` and give back that folder.

    ``changes`` replaces manifest entries by dotted path, e.g. ``{"detector.max_candidates": 3}``.
    """
    folder = store / name / version
    folder.mkdir(parents=True)
    (folder / "detector.onnx").write_bytes(tiny_detector().SerializeToString())
    (folder / "characteriser.onnx").write_bytes(tiny_characteriser(CROP.size_px).SerializeToString())
    (folder / "MODEL_CARD.md").write_text(f"# {name} {version}\n\nFor tests only.\n")
    manifest = tiny_manifest(folder, name, version)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        entry = manifest
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2))
    return folder


def tiny_manifest(folder: Path, name: str, version: str) -> dict[str, Any]:
    """The manifest of the networks that lie in the folder."""
    return {
        "schema_version": 1,
        "name": name,
        "version": version,
        "intended_use": "Tests only. Not for diagnosis.",
        "preprocessing": PREPROCESSING.model_dump(mode="json"),
        "preprocessing_digest": reference_digest(PREPROCESSING, CROP),
        "detector": {
            "file": "detector.onnx",
            "sha256": sha256_of(folder / "detector.onnx"),
            "score_threshold": 0.5,
            "nms_iou": 0.2,
            "max_candidates": 100,
            "halo_voxels": 16,
        },
        "characteriser": {
            "file": "characteriser.onnx",
            "sha256": sha256_of(folder / "characteriser.onnx"),
            "crop": CROP.model_dump(mode="json"),
            "attribute_names": list(ATTRIBUTES),
        },
        "operating_points": {
            "balanced": {"threshold": 0.5, "description": "Default of the tests."},
            "sensitive": {"threshold": 0.1, "description": "Nearly everything."},
            "none": {"threshold": 1.0, "description": "Nothing reaches it."},
        },
        "default_operating_point": "balanced",
        "malignancy": {"meaning": "Brightness of the crop; means nothing.", "threshold": 0.5},
        "provenance": {
            "code": "0" * 40,
            "config": "none",
            "seed": 0,
            "data": [],
            "data_licence": "none",
            "created": "2026-01-01T00:00:00Z",
        },
    }


def sha256_of(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tiny_detector(
    box_voxels: float = BOX_MM / PREPROCESSING.spacing_mm, boxes_per_pass: int = BOXES_PER_PASS
) -> onnx.ModelProto:
    """Peaks of (mean over 3 voxels - 2 * mean over 11 voxels), as boxes of one size; receptive radius 8 voxels.

    Twice, because the edge of the chest wall is brighter than its surroundings too, but they are not dark.
    """
    nodes = [
        *_box_mean("volume", "near", 3),
        *_box_mean("volume", "around", 11),
        helper.make_node("Mul", ["around", "twice"], ["around_twice"]),
        helper.make_node("Sub", ["near", "around_twice"], ["contrast"]),
        helper.make_node("MaxPool", ["contrast"], ["highest"], kernel_shape=[7] * 3, pads=[3] * 6),
        helper.make_node("Equal", ["contrast", "highest"], ["is_peak"]),
        helper.make_node("Where", ["is_peak", "contrast", "least"], ["peaks"]),
        helper.make_node("Reshape", ["peaks", "flat"], ["row"]),
        helper.make_node("TopK", ["row", "count"], ["contrasts", "indices"]),
        helper.make_node("Sub", ["contrasts", "half_way"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Shape", ["volume"], ["height"], start=3, end=4),
        helper.make_node("Shape", ["volume"], ["width"], start=4, end=5),
        helper.make_node("Mod", ["indices", "width"], ["x"]),
        helper.make_node("Div", ["indices", "width"], ["line"]),
        helper.make_node("Mod", ["line", "height"], ["y"]),
        helper.make_node("Div", ["line", "height"], ["z"]),
        *(helper.make_node("Unsqueeze", [axis, "last"], [f"{axis}_column"]) for axis in "zyx"),
        helper.make_node("Concat", [f"{axis}_column" for axis in "zyxzyx"], ["corners_index"], axis=2),
        helper.make_node("Cast", ["corners_index"], ["corners"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["corners", "offsets"], ["boxes"]),
    ]
    half = box_voxels / 2
    constants = {
        "twice": np.array(2.0, np.float32),
        "least": np.array(-2.0, np.float32),
        "flat": np.array([1, -1]),
        "count": np.array([boxes_per_pass]),
        "half_way": np.array(0.12, np.float32),
        "steepness": np.array(20.0, np.float32),
        "last": np.array([2]),
        "offsets": np.array([-half] * 3 + [half] * 3, np.float32),
    }
    return _model(
        nodes,
        constants,
        inputs={"volume": [1, 1, "z", "y", "x"]},
        outputs={"boxes": [1, "k", 6], "scores": [1, "k"]},
    )


def tiny_characteriser(size_px: int) -> onnx.ModelProto:
    """Nodule: bright in the middle of the middle slice. Malignant: bright crop. Mask: bright within 22 pixels."""
    middle = size_px // 2
    nodes = [
        helper.make_node("Slice", ["crops", "from", "to", "in_plane"], ["centre"]),
        helper.make_node("ReduceMean", ["centre", "all_but_first"], ["brightness"], keepdims=0),
        *_probability("brightness", "nodule_probability", half_way=0.4),
        helper.make_node("ReduceMean", ["crops", "all_but_first"], ["mean"], keepdims=0),
        *_probability("mean", "malignancy_probability", half_way=0.2),
        helper.make_node("ReduceMax", ["crops", "all_but_first"], ["brightest"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["mean_column"]),
        helper.make_node("Unsqueeze", ["brightest", "one"], ["brightest_column"]),
        helper.make_node("Concat", ["mean_column", "brightest_column"], ["attributes"], axis=1),
        *_probability("crops", "bright", half_way=0.4),
        helper.make_node("Mul", ["bright", "disc"], ["mask_probability"]),
    ]
    rows, columns = np.indices((size_px, size_px)) - middle
    constants = {
        "from": np.array([middle - 2] * 2),
        "to": np.array([middle + 3] * 2),
        "in_plane": np.array([2, 3]),
        "all_but_first": np.array([1, 2, 3]),
        "one": np.array([1]),
        "disc": (np.hypot(rows, columns) <= 22).astype(np.float32),
    }
    return _model(
        nodes,
        constants,
        inputs={"crops": ["n", "s", size_px, size_px]},
        outputs={
            "nodule_probability": ["n"],
            "malignancy_probability": ["n"],
            "attributes": ["n", 2],
            "mask_probability": ["n", "s", size_px, size_px],
        },
    )


def _box_mean(source: str, target: str, size: int) -> list[onnx.NodeProto]:
    """Mean over what a cube holds of the volume, one axis after the other."""
    names = [source, f"{target}_z", f"{target}_y", target]
    nodes = []
    for axis in range(3):
        kernel = [size if i == axis else 1 for i in range(3)]
        pads = [size // 2 if i == axis else 0 for i in range(3)] * 2
        nodes.append(helper.make_node("AveragePool", [names[axis]], [names[axis + 1]], kernel_shape=kernel, pads=pads))
    return nodes


def _probability(source: str, target: str, half_way: float) -> list[onnx.NodeProto]:
    """Sigmoid of 20 * (source - half_way)."""
    constant = helper.make_tensor(f"{target}_half_way", TensorProto.FLOAT, [], [half_way])
    slope = helper.make_tensor(f"{target}_slope", TensorProto.FLOAT, [], [20.0])
    return [
        helper.make_node("Constant", [], [f"{target}_0"], value=constant),
        helper.make_node("Constant", [], [f"{target}_1"], value=slope),
        helper.make_node("Sub", [source, f"{target}_0"], [f"{target}_2"]),
        helper.make_node("Mul", [f"{target}_2", f"{target}_1"], [f"{target}_3"]),
        helper.make_node("Sigmoid", [f"{target}_3"], [target]),
    ]


def _model(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    inputs: Mapping[str, list[int | str]],
    outputs: Mapping[str, list[int | str]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model
