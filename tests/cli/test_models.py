from __future__ import annotations

import json

import pytest

from app.cli.exits import ExitCode
from app.jobs.installation import open_activations
from app.settings import Settings
from tests.tiny_model import write_tiny_model


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of this test's own, so that it may be damaged."""
    write_tiny_model(tmp_path / "store", version="1.0.0")
    write_tiny_model(tmp_path / "store", version="1.1.0")
    monkeypatch.setenv("LUNGNODULE_MODEL_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def test_list_names_every_version(run, store):
    result = run("models", "list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == ["tiny:1.0.0", "tiny:1.1.0"]


def test_list_as_json(run, store):
    rows = json.loads(run("models", "list", "--json").output)
    assert [(row["name"], row["version"]) for row in rows] == [("tiny", "1.0.0"), ("tiny", "1.1.0")]


def test_show_takes_the_newest_version_unless_told(run, store):
    assert run("models", "show", "tiny").output.startswith("tiny 1.1.0\n")
    assert run("models", "show", "tiny:1.0.0").output.startswith("tiny 1.0.0\n")


def test_show_marks_the_default_operating_point(run, store):
    assert "balanced (default): threshold 0.5" in run("models", "show", "tiny").output


def test_show_as_json_is_the_manifest(run, store):
    shown = json.loads(run("models", "show", "tiny", "--json").output)
    assert shown["detector"] == json.loads((store / "tiny/1.1.0/manifest.json").read_text())["detector"] | {
        "kind": "boxes-3d",
        "parity": None,
        "variants": {},
        "bytes_per_voxel": None,
        "within_lungs": True,
    }


def test_show_puts_the_accuracy_of_a_variant_beside_its_speed(run, store):
    entry = {
        "file": "detector.onnx", "sha256": "0" * 64, "arithmetic": "int8", "max_abs_difference": 0.02,
        "seconds_ratio": 0.5, "figures": [{"name": "recall", "value": 0.89, "fp32": 0.9, "n": 120, "data": "tests"}],
    }  # fmt: skip
    write_tiny_model(store, version="1.2.0", changes={"detector.variants": {"int8": entry}})
    said = run("models", "show", "tiny").output
    assert "detector as int8: 0.50 of fp32's seconds; recall 0.8900 (fp32 0.9000, n = 120)" in said


def test_verify_passes_an_intact_store(run, store):
    result = run("models", "verify")
    assert result.exit_code == 0
    assert result.output.count("verified") == 2


def test_verify_finds_one_changed_byte_and_still_checks_the_rest(run, store):
    network = store / "tiny/1.0.0/detector.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\x00")
    result = run("models", "verify")
    assert result.exit_code == ExitCode.MODEL
    assert "error[hash_mismatch]" in result.stderr
    assert str(network) in result.stderr
    assert "tiny:1.1.0  verified" in result.stdout


def test_verify_of_an_empty_store_is_no_success(run, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("LUNGNODULE_MODEL_STORE", str(tmp_path / "empty"))
    assert run("models", "verify").exit_code == ExitCode.MODEL


def test_unknown_model_is_model_trouble_and_says_what_there_is(run, store):
    result = run("models", "show", "other")
    assert result.exit_code == ExitCode.MODEL
    assert "tiny:1.0.0" in result.stderr


@pytest.fixture
def chosen(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGNODULE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LUNGNODULE_MODELS", "tiny:1.0.0")
    monkeypatch.setenv("LUNGNODULE_DEVICE", "cpu")
    monkeypatch.setenv("LUNGNODULE_THREADS", "1")

    def in_force():
        with open_activations(Settings()) as activations:
            active = activations.active()
        return active and active.version

    return in_force


def test_activate_puts_a_model_in_force_and_names_the_one_before(run, store, chosen):
    result = run("models", "activate", "tiny", "1.1.0")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "tiny:1.1.0  active; before it tiny:1.0.0\n"
    assert chosen() == "1.1.0"
    assert "before it tiny:1.1.0" in run("models", "deactivate").output
    assert chosen() is None


def test_activate_refuses_a_damaged_model_and_leaves_the_choice(run, store, chosen):
    network = store / "tiny/1.1.0/detector.onnx"
    network.write_bytes(network.read_bytes()[:-1] + b"\x00")
    result = run("models", "activate", "tiny", "1.1.0")
    assert result.exit_code == ExitCode.MODEL
    assert str(network) in result.stderr
    assert chosen() is None
