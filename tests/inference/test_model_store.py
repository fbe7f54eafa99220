import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.imaging.errors import ModelError
from app.inference.model_store import find_model, list_models, load_model, verify_model, warm_up
from app.inference.network import SessionOptions
from app.inference.opening import CHARACTERISER
from tests.tiny_model import sha256_of, tiny_detector, write_tiny_model

CPU = SessionOptions(device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path, tiny_model_store: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_model_store / "tiny" / "1.0.0", tmp_path / "store" / "tiny" / "1.0.0"))


def change_manifest(folder: Path, path: str, value: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    *parents, last = path.split(".")
    entry = manifest
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refusal(action, *arguments) -> ModelError:
    with pytest.raises(ModelError) as refused:
        action(*arguments)
    return refused.value


def test_a_sound_folder_is_verified(folder):
    assert verify_model(folder).name == "tiny"


def test_a_changed_byte_is_named_with_both_hashes(folder):
    path = folder / "detector.onnx"
    expected = sha256_of(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for action in (verify_model, lambda f: load_model(f, CPU)):
        error = refusal(action, folder)
        assert error.code == "hash_mismatch"
        assert error.values == {"file": str(path), "expected": expected, "found": sha256_of(path)}
        assert str(path) in error.message


def test_every_file_of_the_manifest_is_checked(folder):
    (folder / "characteriser.onnx").write_bytes(b"another")
    assert refusal(verify_model, folder).values["file"].endswith("characteriser.onnx")


def test_a_missing_file_is_named(folder):
    (folder / "characteriser.onnx").unlink()
    error = refusal(verify_model, folder)
    assert (error.code, Path(error.values["file"]).name) == ("file_missing", "characteriser.onnx")


def test_a_link_is_refused_even_to_the_right_content(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere.onnx"
    (folder / "detector.onnx").rename(elsewhere)
    (folder / "detector.onnx").symlink_to(elsewhere)
    assert refusal(verify_model, folder).code == "file_not_regular"


def test_a_folder_in_place_of_a_file_is_refused(folder):
    (folder / "detector.onnx").unlink()
    (folder / "detector.onnx").mkdir()
    assert refusal(verify_model, folder).code == "file_not_regular"


@pytest.mark.parametrize("name", ["../detector.onnx", "/etc/passwd", "sub/detector.onnx", "..", ".hidden", ""])
def test_a_manifest_cannot_point_out_of_its_folder(folder, name):
    change_manifest(folder, "detector.file", name)
    error = refusal(verify_model, folder)
    assert error.code == "manifest_invalid"
    assert error.values["faults"][0]["field"] == "detector.file"


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    assert refusal(verify_model, tmp_path).code == "manifest_missing"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"], ids=["cut", "not utf-8", "no object"])
def test_a_damaged_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert refusal(verify_model, folder).code == "manifest_invalid"


def test_the_identity_is_the_hash_of_the_manifest(folder):
    loaded = load_model(folder, CPU)
    found = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (loaded.identity.name, loaded.identity.version, loaded.identity.sha256) == ("tiny", "1.0.0", found)
    assert loaded.execution_provider == "CPUExecutionProvider"


def test_preprocessing_that_gives_other_arrays_is_refused(folder):
    change_manifest(folder, "preprocessing_digest", "f" * 64)
    error = refusal(load_model, folder, CPU)
    assert error.code == "preprocessing_mismatch"
    assert error.values["expected"] == "f" * 64


@pytest.mark.parametrize("field", ["preprocessing.window_hu", "characteriser.crop.window_hu"])
def test_a_spec_changed_after_training_is_refused(folder, field):
    change_manifest(folder, field, [-900.0, 300.0])
    assert refusal(load_model, folder, CPU).code == "preprocessing_mismatch"


def test_networks_in_each_others_place_are_refused(folder):
    for role, other in (("detector", "characteriser"), ("characteriser", "detector")):
        change_manifest(folder, f"{role}.file", f"{other}.onnx")
        change_manifest(folder, f"{role}.sha256", sha256_of(folder / f"{other}.onnx"))
    error = refusal(load_model, folder, CPU)
    assert error.code == "network_contract"
    assert error.values["inputs"] == {"crops": 4}


def test_attributes_that_the_manifest_does_not_name_are_refused(folder):
    change_manifest(folder, "characteriser.attribute_names", ["only_one"])
    error = refusal(load_model, folder, CPU)
    assert (error.code, error.values["found"], error.values["expected"]) == ("network_contract", 2, 1)


def test_an_unreadable_network_with_a_right_hash_is_refused(folder):
    (folder / "detector.onnx").write_bytes(tiny_detector().SerializeToString()[:100])
    change_manifest(folder, "detector.sha256", sha256_of(folder / "detector.onnx"))
    assert refusal(load_model, folder, CPU).code == "network_invalid"


def test_what_fell_back_to_the_cpu_says_so(folder, monkeypatch):
    monkeypatch.setattr("app.inference.network.gpu_count", lambda: 0)
    loaded = load_model(folder, replace(CPU, device="cuda"))
    assert [notice.code for notice in loaded.notices] == ["device_fallback"]
    assert refusal(load_model, folder, replace(CPU, require_gpu=True)).code == "gpu_required"


def test_warming_up_runs_both_networks(tiny_model):
    seen = []

    def watched(network):
        return lambda inputs: seen.append({name: value.shape for name, value in inputs.items()}) or network(inputs)

    warm_up(replace(tiny_model, detector=watched(tiny_model.detector), characteriser=watched(tiny_model.characteriser)))
    assert seen == [{"volume": (1, 1, 32, 32, 32)}, {"crops": (2, 3, 64, 64)}]


@pytest.mark.parametrize("output", sorted(CHARACTERISER.outputs))
def test_warming_up_finds_an_output_of_another_shape(tiny_model, output):
    def faulty(inputs):
        said = tiny_model.characteriser(inputs)
        return {**said, output: np.zeros((7,) * said[output].ndim, np.float32)}

    error = refusal(warm_up, replace(tiny_model, characteriser=faulty))
    assert (error.code, error.values["output"]) == ("network_contract", output)


def test_models_are_listed_by_name_and_version(tmp_path):
    for name, version in [("b", "1.0.0"), ("a", "0.10.0"), ("a", "0.9.0"), ("a", "0.10.0-rc1")]:
        (tmp_path / name / version).mkdir(parents=True)
        (tmp_path / name / version / "manifest.json").write_text("{}")
    (tmp_path / "a" / "without-manifest").mkdir()
    listed = [(model.name, model.version) for model in list_models(tmp_path)]
    assert listed == [("a", "0.9.0"), ("a", "0.10.0-rc1"), ("a", "0.10.0"), ("b", "1.0.0")]


def test_a_missing_store_is_named(tmp_path):
    error = refusal(list_models, tmp_path / "nowhere")
    assert (error.code, error.values) == ("store_missing", {"store": str(tmp_path / "nowhere")})


def test_the_newest_version_is_found_unless_one_is_named(tmp_path):
    for version in ("0.9.0", "0.10.0"):
        (tmp_path / "a" / version).mkdir(parents=True)
        (tmp_path / "a" / version / "manifest.json").write_text("{}")
    assert find_model(tmp_path).version == "0.10.0"
    assert find_model(tmp_path, "a", "0.9.0").path == tmp_path / "a" / "0.9.0"
    error = refusal(find_model, tmp_path, "a", "2.0.0")
    assert (error.code, error.values["available"]) == ("model_unknown", ["a:0.9.0", "a:0.10.0"])


def test_between_two_names_the_caller_must_choose(tmp_path):
    for name in ("a", "b"):
        write_tiny_model(tmp_path, name=name)
    assert refusal(find_model, tmp_path).code == "model_ambiguous"
    assert verify_model(find_model(tmp_path, "b").path).name == "b"
