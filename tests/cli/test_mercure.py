"""The contract of mercure's modules: a task in one folder, DICOM and result.json in the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest

from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from tests.reporting.validators import errors_of_dciodvfy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Named as mercure names them."""
    folder = tmp_path_factory.mktemp("task")
    for path in write_dicom_series(phantom_ct(noise_hu=5.0, seed=3).volume, folder):
        uid = pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID
        path.rename(folder / f"{uid}#{path.name}")
    return folder


def task(folder: Path, settings: Any) -> None:
    (folder / "task.json").write_text(json.dumps({"id": "1", "process": {"module_name": "x", "settings": settings}}))


@pytest.mark.usefixtures("on_tiny_model")
def test_a_task_gives_dicom_objects_and_a_result(
    run: Any, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task(series, {"kinds": ["sr", "seg", "gsps"], "notify": "always"})
    monkeypatch.setenv("MERCURE_IN_DIR", str(series))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "out"))
    done = run("mercure")
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out/result.json").read_text())
    assert told["nodules"] == len(told["result"]["nodules"]) > 0
    assert told["__mercure_notification"]["requested"] is True
    assert "not for diagnosis" in told["__mercure_notification"]["text"].lower()
    made = {pydicom.dcmread(path).Modality: path for path in (tmp_path / "out").glob("*.dcm")}
    assert sorted(made) == ["PR", "SEG", "SR"]
    for path in made.values():
        assert path.name.partition("#")[0] == pydicom.dcmread(path).SeriesInstanceUID
        assert errors_of_dciodvfy(path) == []
    study = pydicom.dcmread(next(series.glob("*.dcm")), stop_before_pixels=True).StudyInstanceUID
    assert pydicom.dcmread(made["SR"]).StudyInstanceUID == study


@pytest.mark.usefixtures("on_tiny_model")
@pytest.mark.parametrize(
    ("settings", "code"),
    [({"modell": "x"}, "task_settings"), ({"kinds": ["stl"]}, "task_settings"), ([1], "task_settings")],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    run: Any, series: Path, tmp_path: Path, settings: Any, code: str
) -> None:
    task(series, settings)
    done = run("mercure", "--input", series, "--output", tmp_path / "out")
    assert (done.exit_code, f"error[{code}]" in done.output + done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_task_that_is_none_and_an_empty_one_are_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text("[]")
    assert "error[task_invalid]" in run("mercure", "--input", tmp_path, "--output", tmp_path / "out").stderr
    (tmp_path / "task.json").unlink()
    assert "error[empty_upload]" in run("mercure", "--input", tmp_path, "--output", tmp_path / "out").stderr


@pytest.mark.usefixtures("on_tiny_model")
def test_the_configuration_that_is_shipped_fits(run: Any, series: Path, tmp_path: Path) -> None:
    shipped = json.loads((ROOT / "deploy/mercure/module.json").read_text())["modules"]["lungnodule"]["settings"]
    # The tiny model has one operating point only, of another name; all else is as it is shipped.
    task(series, {**shipped, "operating_point": None, "notify": "never"})
    done = run("mercure", "--input", series, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "__mercure_notification" not in json.loads((tmp_path / "out/result.json").read_text())
