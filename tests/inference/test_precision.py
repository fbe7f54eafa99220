"""What runs is what was chosen, or a refusal that names what there is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.imaging.errors import ModelError
from app.inference.manifest import ModelManifest, NetworkVariant
from app.inference.model_store import load_model, verify_model, warm_up
from app.inference.network import SessionOptions
from app.inference.openvino_network import has_openvino
from app.inference.precision import Machine, choose_precision, precisions_of
from tests.tiny_model import sha256_of, tiny_detector

CPU = SessionOptions(device="cpu", threads=1)
BARE, WITH_GPU, WITH_BOTH = Machine(False, False), Machine(True, False), Machine(True, True)


def variant(**changes):
    entry = {"file": "other.onnx", "sha256": "0" * 64, "arithmetic": "int8", "max_abs_difference": 0.01}
    return NetworkVariant.model_validate({**entry, "seconds_ratio": 0.5, **changes})


@pytest.fixture
def manifest_with(tiny_model):
    """The tiny model's manifest with these variants."""

    def build(detector=None, characteriser=None) -> ModelManifest:
        manifest = tiny_model.manifest
        entries = {"detector": detector or {}, "characteriser": characteriser or {}}
        return manifest.model_copy(
            update={role: getattr(manifest, role).model_copy(update={"variants": v}) for role, v in entries.items()}
        )

    return build


@pytest.fixture
def folder(tmp_path: Path, tiny_model_store: Path) -> Path:
    """The tiny model with an int8 detector that marks larger boxes, and an fp16 one for GPUs: told apart by answer."""
    copy = Path(shutil.copytree(tiny_model_store / "tiny" / "1.0.0", tmp_path / "tiny" / "1.0.0"))
    (copy / "large.onnx").write_bytes(tiny_detector(box_voxels=9.0).SerializeToString())
    content = json.loads((copy / "manifest.json").read_text())
    entry = {"file": "large.onnx", "sha256": sha256_of(copy / "large.onnx"), "max_abs_difference": 0.0}
    content["detector"]["variants"] = {
        "int8": {**entry, "arithmetic": "int8", "seconds_ratio": 0.5, "bytes_per_voxel": 12.5},
        "fp16": {**entry, "arithmetic": "float16", "device": "gpu"},
        "bf16": {**entry, "arithmetic": "bfloat16", "runtime": "openvino", "seconds_ratio": 0.3},
    }
    (copy / "manifest.json").write_text(json.dumps(content))
    return copy


def box_side(model) -> float:
    boxes = model.detector({"volume": np.zeros((1, 1, 16, 16, 16), np.float32)})["boxes"]
    return float(boxes[0, 0, 3] - boxes[0, 0, 0])


def refusal(action, *arguments) -> ModelError:
    with pytest.raises(ModelError) as refused:
        action(*arguments)
    return refused.value


def test_the_variant_that_was_asked_for_runs_and_the_other_network_as_fp32(folder):
    loaded = load_model(folder, CPU, "int8")
    assert loaded.precision == {"detector": "int8", "characteriser": "fp32"}
    assert (box_side(loaded), loaded.detector_bytes_per_voxel) == (9.0, 12.5)
    warm_up(loaded)


def test_without_a_choice_fp32_runs(folder):
    loaded = load_model(folder, CPU)
    assert loaded.precision == {"detector": "fp32", "characteriser": "fp32"}
    assert (box_side(loaded), loaded.detector_bytes_per_voxel) == (5.0, None)


def test_an_unknown_precision_is_refused_with_those_there_are(folder):
    error = refusal(load_model, folder, CPU, "int4")
    assert error.code == "precision_unknown"
    assert error.values == {"precision": "int4", "available": ["fp32", "bf16", "fp16", "int8"]}
    assert "fp32, bf16, fp16, int8; int4 is not among them" in error.message


def test_a_precision_for_gpus_gives_way_to_fp32_and_says_so(folder):
    loaded = load_model(folder, CPU, "fp16")
    assert loaded.precision == {"detector": "fp32", "characteriser": "fp32"}
    assert box_side(loaded) == 5.0
    assert [notice.code for notice in loaded.notices] == ["precision_fallback"]


def test_a_required_gpu_is_not_softened_by_a_precision(folder, monkeypatch):
    monkeypatch.setattr("app.inference.network.gpu_count", lambda: 0)
    needs_gpu = SessionOptions(device="auto", threads=1, require_gpu=True)
    assert refusal(load_model, folder, needs_gpu, "fp16").code == "gpu_required"
    assert refusal(load_model, folder, needs_gpu, "int8").code == "precision_unsuited"


def test_every_file_of_a_variant_is_verified(folder):
    assert verify_model(folder).detector.variants.keys() == {"int8", "fp16", "bf16"}
    (folder / "large.onnx").write_bytes(b"another")
    assert refusal(verify_model, folder).code == "hash_mismatch"
    assert refusal(load_model, folder, CPU, "int8").code == "hash_mismatch"
    assert load_model(folder, CPU).precision["detector"] == "fp32"


@pytest.mark.skipif(has_openvino(), reason="OpenVINO is installed")
def test_a_precision_of_a_missing_runtime_is_refused(folder):
    error = refusal(load_model, folder, CPU, "bf16")
    assert error.code == "runtime_missing"
    assert "pip install" in error.message


@pytest.mark.parametrize(
    ("machine", "device", "chosen"),
    [
        (BARE, "auto", "int8"),
        (BARE, "cpu", "int8"),
        (Machine(False, True), "auto", "bf16"),
        (WITH_BOTH, "cpu", "bf16"),
        (WITH_BOTH, "auto", "fp16"),
        (WITH_GPU, "cuda", "fp16"),
    ],
)
def test_auto_takes_the_quickest_that_can_run_here(manifest_with, machine, device, chosen):
    manifest = manifest_with(
        {
            "int8": variant(seconds_ratio=0.5),
            "slow": variant(seconds_ratio=1.2),
            "bf16": variant(seconds_ratio=0.3, runtime="openvino", arithmetic="bfloat16"),
            "fp16": variant(seconds_ratio=0.4, device="gpu", arithmetic="float16"),
        }
    )
    session = replace(CPU, device=device)
    assert choose_precision(manifest, "auto", session, machine) == {"detector": chosen, "characteriser": "fp32"}


def test_auto_takes_nothing_that_was_not_measured_to_be_faster(manifest_with):
    manifest = manifest_with({"int8": variant(seconds_ratio=None)}, {"int8": variant(seconds_ratio=1.1)})
    assert set(choose_precision(manifest, "auto", CPU, BARE).values()) == {"fp32"}


def test_auto_on_a_required_gpu_never_leaves_it(manifest_with):
    manifest = manifest_with({"int8": variant()})
    session = SessionOptions(device="auto", require_gpu=True)
    assert set(choose_precision(manifest, "auto", session, BARE).values()) == {"fp32"}


def test_a_cpu_precision_with_a_gpu_asked_for_is_refused(manifest_with):
    manifest = manifest_with({"int8": variant()})
    error = refusal(choose_precision, manifest, "int8", SessionOptions(device="cuda"), WITH_GPU)
    assert (error.code, error.values["available"]) == ("precision_unsuited", ["fp32", "int8"])


def test_a_name_counts_where_either_network_has_it(manifest_with):
    manifest = manifest_with({"a": variant()}, {"b": variant()})
    assert precisions_of(manifest) == ["fp32", "a", "b"]
    assert choose_precision(manifest, "b", CPU, BARE) == {"detector": "fp32", "characteriser": "b"}


@pytest.mark.parametrize("name", ["fp32", "auto", "INT8", ""])
def test_reserved_and_odd_names_are_no_variants(tiny_model, name):
    content = tiny_model.manifest.model_dump(mode="json")
    content["detector"]["variants"] = {name: variant().model_dump(mode="json")}
    with pytest.raises(ValueError, match=r"variants|cannot name a variant"):
        ModelManifest.model_validate(content)
