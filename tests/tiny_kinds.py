"""The tiny detector in the other kinds that a manifest can name, as graphs made by hand; and models of it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from app.phantom.reference import reference_digest
from tests.tiny_model import BOX_MM, PREPROCESSING, _box_mean, _model, sha256_of, tiny_manifest, write_tiny_model

SIDE = BOX_MM / PREPROCESSING.spacing_mm
STRIDE = 2
SHIFT = 0.25
"""What the graphs say of how far a nodule lies beside the middle of its cell, as a share of the anchor's side."""

HEAT_MAP = {
    "kind": "heat-map", "score_threshold": 0.5, "halo_voxels": 16, "stride_zyx": [STRIDE] * 3,
    "first_cell_zyx": [0.0] * 3, "heat": "logit", "size": "log-voxels", "peak_cells": 5,
}  # fmt: skip
HEADS = {
    "kind": "retinanet-heads", "score_threshold": 0.5, "multiple_zyx": [4] * 3,
    "levels": [
        {"stride_zyx": [2] * 3, "first_cell_zyx": [0.0] * 3, "sizes_zyx": [[3.0, 3.0, 3.0], [2.0, 4.0, 8.0]]},
        {"stride_zyx": [4] * 3, "first_cell_zyx": [0.0] * 3, "sizes_zyx": [[9.0] * 3, [12.0] * 3]},
    ],
    "window": {"shape_zyx": [200, 200, 200], "overlap": 0.25},
}  # fmt: skip


def contrast_nodes() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """``logits``: (mean over 3 voxels - 2 * mean over 11 - 0.12) * 20, as the tiny detector judges a voxel."""
    nodes = [
        *_box_mean("volume", "near", 3),
        *_box_mean("volume", "around", 11),
        helper.make_node("Mul", ["around", "twice"], ["around_twice"]),
        helper.make_node("Sub", ["near", "around_twice"], ["contrast"]),
        helper.make_node("Sub", ["contrast", "half_way"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["logits"]),
    ]
    constants = {"twice": 2.0, "half_way": 0.12, "steepness": 20.0}
    return nodes, {name: np.array(value, np.float32) for name, value in constants.items()}


def tiny_heat_map_detector() -> onnx.ModelProto:
    """A map at stride 2, a size map of one value, an offset map that moves each box by half a voxel along x."""
    nodes, constants = contrast_nodes()
    nodes += [
        helper.make_node("AveragePool", ["logits"], ["heat"], kernel_shape=[1] * 3, strides=[STRIDE] * 3),
        helper.make_node("Mul", ["heat", "nothing"], ["empty"]),
        helper.make_node("Add", ["empty", "log_side"], ["size"]),
        helper.make_node("Add", ["empty", "aside"], ["offset"]),
    ]
    constants |= {
        "nothing": np.array(0.0, np.float32),
        "log_side": np.array(np.log(SIDE), np.float32),
        "aside": np.array([0.0, 0.0, 0.5], np.float32).reshape(1, 3, 1, 1, 1),
    }
    cells = ["d", "h", "w"]
    return _model(
        nodes,
        constants,
        inputs={"volume": [1, 1, "z", "y", "x"]},
        outputs={"heat": [1, 1, *cells], "size": [1, 1, *cells], "offset": [1, 3, *cells]},
    )


def tiny_heads_detector() -> onnx.ModelProto:
    """Two levels of two anchors. The second anchor of the fine level speaks, moved and grown; others are silent."""
    nodes, constants = contrast_nodes()
    constants |= {"nothing": np.array(0.0, np.float32)}
    for level, (stride, logits) in enumerate(((2, (-50.0, 0.0)), (4, (-50.0, -50.0)))):
        grown = np.zeros((2, 6), np.float32)
        grown[1] = (SHIFT, 0.0, -SHIFT, np.log(2.0), 0.0, 0.0)
        constants[f"anchors_{level}"] = np.array(logits, np.float32).reshape(1, 2, 1, 1, 1)
        constants[f"boxes_{level}"] = grown.reshape(1, 12, 1, 1, 1)
        nodes += [
            helper.make_node("AveragePool", ["logits"], [f"cells_{level}"], kernel_shape=[1] * 3, strides=[stride] * 3),
            helper.make_node("Add", [f"cells_{level}", f"anchors_{level}"], [f"logits_{level}"]),
            helper.make_node("Mul", [f"cells_{level}", "nothing"], [f"empty_{level}"]),
            helper.make_node("Add", [f"empty_{level}", f"boxes_{level}"], [f"deltas_{level}"]),
        ]
    outputs = {
        f"{name}_{level}": [1, channels, f"d{level}", f"h{level}", f"w{level}"]
        for name, channels in (("logits", 2), ("deltas", 12))
        for level in range(2)
    }
    return _model(nodes, constants, inputs={"volume": [1, 1, "z", "y", "x"]}, outputs=outputs)


def write_detector_only(store: Path, detector: onnx.ModelProto, entry: dict[str, Any], *, name: str = "alone") -> Path:
    """``store/name/1.0.0`` with a detector and nothing else."""
    folder = write_tiny_model(store, name=name)
    (folder / "detector.onnx").write_bytes(detector.SerializeToString())
    manifest = tiny_manifest(folder, name, "1.0.0")
    manifest["detector"] = {"file": "detector.onnx", "sha256": sha256_of(folder / "detector.onnx"), **entry}
    del manifest["characteriser"], manifest["malignancy"]
    manifest["preprocessing_digest"] = reference_digest(PREPROCESSING, None)
    (folder / "characteriser.onnx").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
