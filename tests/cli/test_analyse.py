from __future__ import annotations

import pytest

from app.cli.exits import ExitCode

pytestmark = pytest.mark.usefixtures("on_tiny_model")


def test_path_that_is_not_there_is_wrong_usage(run, tmp_path):
    assert run("analyse", tmp_path / "absent").exit_code == ExitCode.USAGE


def test_folder_without_a_scan_is_an_unusable_scan(run, tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    result = run("analyse", tmp_path)
    assert result.exit_code == ExitCode.SCAN
    assert result.stdout == ""
    assert "error[not_dicom]: " in result.stderr


def test_operating_point_is_checked_before_the_scan_is_read(run, tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    result = run("analyse", tmp_path, "--operating-point", "wild")
    assert result.exit_code == ExitCode.USAGE
    assert "balanced" in result.stderr


def test_unknown_repair_names_the_known_ones(run, tmp_path):
    result = run("analyse", tmp_path, "--allow-repair", "everything")
    assert result.exit_code == ExitCode.USAGE
    assert "duplicate_slices, missing_slices" in result.stderr


def test_unknown_model_is_model_trouble(run, tmp_path):
    assert run("analyse", tmp_path, "--model", "tiny:9.9.9").exit_code == ExitCode.MODEL
