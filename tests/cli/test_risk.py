from __future__ import annotations

import json
import subprocess
import sys

from app.cli.exits import ExitCode

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
