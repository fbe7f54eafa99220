from __future__ import annotations

import json
import subprocess
import sys

from app.cli.exits import ExitCode
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec

NODULE = {"kind": "solid", "long_axis_mm": 9.0, "short_axis_mm": 8.0, "lobe": "upper", "is_spiculated": False}


def test_the_example_is_assessed(run, tmp_path):
    example = run("risk", "--example")
    request = tmp_path / "nodules.json"
    request.write_text(example.stdout)
    shown = run("risk", request)
    assert shown.exit_code == ExitCode.OK, shown.stderr
    assert "Lung-RADS of the exam: 4A" in shown.stdout
    assert "Research use only. Not for diagnosis." in shown.stdout
    answer = json.loads(run("risk", request, "--json").stdout)
    assert answer["lung_rads"]["category"] == "4A"


def test_it_reads_standard_input():
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "risk", "-", "--json"],
        input=json.dumps({"nodules": [NODULE]}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["nodules"][0]["brock"][0]["probability"] is None


def test_what_is_missing_is_said(run, tmp_path):
    request = tmp_path / "nodules.json"
    request.write_text(json.dumps({"nodules": [NODULE]}))
    shown = run("risk", request).stdout
    assert "Missing: age_years, sex, family_history_lung_cancer, emphysema." in shown
    assert "not told: setting" in shown


def test_what_does_not_fit_is_wrong_usage(run, tmp_path):
    request = tmp_path / "nodules.json"
    request.write_text('{"nodules": [{"long_axis_mm": "Doe"}]}')
    refused = run("risk", request)
    assert refused.exit_code == ExitCode.USAGE
    assert "error[context_invalid]: " in refused.stderr
    assert "nodules.0.long_axis_mm" in refused.stderr
    assert "Doe" not in refused.stderr
    assert run("risk").exit_code == ExitCode.USAGE
    assert run("risk", tmp_path / "absent.json").exit_code == ExitCode.USAGE


def test_the_context_of_a_scan_is_read_before_the_scan(run, tmp_path, on_tiny_model):
    (tmp_path / "notes.txt").write_text("no scan")
    wrong = tmp_path / "context.json"
    wrong.write_text('{"age": 60}')
    refused = run("analyse", tmp_path, "--context", wrong)
    assert refused.exit_code == ExitCode.USAGE
    assert "age_years" in refused.stderr


def test_a_scan_with_its_context_and_age_and_sex_from_the_headers(run, tmp_path, on_tiny_model):
    nodules = [NoduleSpec(diameter_mm=16.0)]
    scan = phantom_ct(shape_zyx=(80, 96, 96), spacing_zyx_mm=(4.0, 4.0, 4.0), nodules=nodules, noise_hu=5.0).volume
    series = tmp_path / "series"
    write_dicom_series(scan, series, patient=PhantomPatient(sex="F", age="063Y"))
    told = tmp_path / "context.json"
    told.write_text(json.dumps({"from_headers": True, "setting": "screening"}))
    assessment = json.loads(run("analyse", series, "--context", told, "--json").stdout)["assessment"]
    assert assessment["inputs_from_headers"] == ["age_years", "sex"]
    assert assessment["nodules"]
    for nodule in assessment["nodules"]:
        assert nodule["brock"][0]["inputs_used"].items() >= {"age_years": 63.0, "sex": "female"}.items()
    shown = run("analyse", series, "--context", told).stdout
    assert "Lung-RADS of the exam: " in shown
    bare = run("analyse", series, "--json").stdout
    assert "63.0" not in json.dumps(json.loads(bare)["assessment"])
    assert "female" not in bare
