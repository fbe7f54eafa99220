"""Settings come from the environment, and a typing error is not a default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings, UnknownSetting, refuse_unknown_settings, setting_names, settings_from_environment


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("LUNGNODULE_REQUIRE_CPU", "LUNGNODULE_REQUIRE_GPU"),
        ("LUNGNODULE_MAX_FILE", "LUNGNODULE_MAX_FILES"),
        ("LUNGNODULE_READ__MAX_SLICE", "LUNGNODULE_READ__MAX_SLICES"),
        ("lungnodule_prot", "LUNGNODULE_PORT"),
    ],
)
def test_an_unknown_name_is_refused_with_the_closest_known_one(env: pytest.MonkeyPatch, typed: str, meant: str) -> None:
    env.setenv(typed, "1")
    with pytest.raises(UnknownSetting, match=f"{typed}; the closest known one is {meant}$"):
        settings_from_environment()


def test_every_unknown_name_is_told_at_once() -> None:
    with pytest.raises(UnknownSetting, match=r"LUNGNODULE_A.*LUNGNODULE_B"):
        refuse_unknown_settings({"LUNGNODULE_B": "", "LUNGNODULE_A": "", "PATH": ""})


def test_values_are_read(env: pytest.MonkeyPatch) -> None:
    env.setenv("LUNGNODULE_MODELS", "lungnodule:0.1.0, other")
    env.setenv("LUNGNODULE_REQUIRE_GPU", "1")
    env.setenv("LUNGNODULE_READ__MAX_SLICES", "77")
    env.setenv("LUNGNODULE_TEMP_DIR", "/var/tmp/with space")
    env.setenv("LUNGNODULE_ROOT_PATH", "ct/")
    settings = settings_from_environment()
    assert settings.models == ("lungnodule:0.1.0", "other")
    assert settings.require_gpu is True
    assert settings.read.max_slices == 77
    assert settings.temp_dir == Path("/var/tmp/with space")
    assert settings.root_path == "/ct"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("MODELS", ","), ("DEVICE", "tpu"), ("MAX_WAITING", "-1"), ("UPLOAD_GRACE_S", "0"),
     ("STORE_URL", "s3://"), ("STORE_URL", "s3://bucket/*"), ("STORE_URL", "s3://key:secret@bucket"),
     ("STORE_URL", "gs://bucket"), ("STORE_URL", "/srv/scans")],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused(env: pytest.MonkeyPatch, name: str, value: str) -> None:
    env.setenv(f"LUNGNODULE_{name}", value)
    with pytest.raises(ValidationError):
        settings_from_environment()


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_an_object_store_needs_its_extra(env: pytest.MonkeyPatch) -> None:
    env.setenv("LUNGNODULE_STORE_URL", "s3://bucket/ct")
    env.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    with pytest.raises(ValidationError, match=r"pip install 'lungnodule\[s3\]'"):
        settings_from_environment()


def test_without_an_object_store_nothing_of_it_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from app.main import create_app; from app.settings import Settings; "
        "from app.jobs.installation import open_jobs; jobs = open_jobs(Settings()); jobs.__enter__(); "
        "found = {m.split('.')[0] for m in sys.modules}; "
        "print(sorted(found & {'s3fs', 'botocore', 'aiobotocore', 'aiohttp', 'fsspec'}))"
    )
    environment = {**os.environ, "LUNGNODULE_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
