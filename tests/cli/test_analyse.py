from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.cli.analyse import _place
from app.cli.exits import ExitCode
from app.reporting.material import Report
from app.reporting.tables import table
from tests.api.standins import make_findings, make_nodule

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


def test_the_csv_holds_what_was_measured_and_leaves_open_what_was_not():
    bare = replace(make_nodule(2, 0.5), kind=None, location=None, is_spiculated=None, volume_interval_mm3=None)
    full, open_row = csv.DictReader(
        io.StringIO(table(Report(make_findings(make_nodule(1, 0.9), bare), datetime.now(UTC))))
    )
    assert (full["kind"], full["is_spiculated"], full["signs"]) == ("part_solid", "yes", "fat")
    assert (full["volume_low_mm3"], full["volume_high_mm3"], full["mass_mg"]) == ("150.2", "240.8", "120.5")
    assert (full["lobe"], full["distance_to_pleura_mm"], full["is_juxtapleural"]) == ("upper", "1.5", "yes")
    empty = ("kind", "is_spiculated", "lobe", "volume_low_mm3", "distance_to_hilum_mm", "is_juxtapleural")
    assert [open_row[name] for name in empty] == [""] * len(empty)


def test_the_table_names_a_lobe_as_a_guess():
    assert _place(make_nodule(1, 0.9)) == "left upper?, pleura"
    assert _place(replace(make_nodule(1, 0.9), location=None)) == "left"
