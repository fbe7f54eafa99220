from __future__ import annotations

import json

import pytest

from app.cli.doctor import examine
from app.inference.network import gpu_count
from app.settings import Settings
from tests.tiny_model import write_tiny_model


@pytest.fixture
def settings(tiny_model_store):
    return Settings(model_store=tiny_model_store, models=("tiny",), device="cpu", threads=1, min_free_disk_bytes=0)


def verdicts(settings):
    return {check.name: check.verdict for check in examine(settings)}


def test_a_sound_installation_has_no_failure(settings):
    assert "failed" not in verdicts(settings).values()


def test_it_looks_at_everything_that_is_promised(settings):
    assert set(verdicts(settings)) == {"version", "device", "model", "decoders", "disk", "memory", "limits"}


def test_damaged_model_fails_and_is_named(settings, tmp_path):
    folder = write_tiny_model(tmp_path)
    (folder / "characteriser.onnx").write_bytes(b"")
    (check,) = [c for c in examine(settings.model_copy(update={"model_store": tmp_path})) if c.name == "model"]
    assert check.verdict == "failed"
    assert "hash_mismatch" in check.detail
    assert "characteriser.onnx" in check.detail


def test_too_little_disk_fails(settings):
    assert verdicts(settings.model_copy(update={"min_free_disk_bytes": 1 << 60}))["disk"] == "failed"


def test_less_disk_than_one_upload_warns(settings):
    assert verdicts(settings.model_copy(update={"max_request_bytes": 1 << 60}))["disk"] == "warning"


def test_temporary_folder_that_is_not_there_fails(settings, tmp_path):
    assert verdicts(settings.model_copy(update={"temp_dir": tmp_path / "absent"}))["disk"] == "failed"


@pytest.mark.skipif(gpu_count() > 0, reason="this machine has a GPU")
def test_required_gpu_that_is_not_there_fails_twice(settings):
    found = verdicts(settings.model_copy(update={"require_gpu": True, "device": "cuda"}))
    assert found["device"] == found["model"] == "failed"


@pytest.mark.skipif(gpu_count() > 0, reason="this machine has a GPU")
def test_wanted_gpu_that_is_not_there_warns(settings):
    assert verdicts(settings.model_copy(update={"device": "cuda"}))["device"] == "warning"


def test_absent_decoder_fails_and_is_named(settings, monkeypatch):
    monkeypatch.setattr("app.cli.doctor.DECODERS", {"JPEG XL": "no-such-package"})
    (check,) = [c for c in examine(settings) if c.name == "decoders"]
    assert check.verdict == "failed"
    assert check.detail == "JPEG XL needs no-such-package"


def test_exit_code_follows_the_verdicts(run, on_tiny_model, monkeypatch):
    monkeypatch.setenv("LUNGNODULE_MIN_FREE_DISK_BYTES", "0")
    assert run("doctor").exit_code == 0
    monkeypatch.setenv("LUNGNODULE_MIN_FREE_DISK_BYTES", str(1 << 60))
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert {"name": "disk", "verdict": "failed"}.items() <= next(
        c for c in json.loads(result.output) if c["name"] == "disk"
    ).items()
