"""`lungnodule analyse --prior`, on the tiny model and a pair of phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.exits import ExitCode
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from tests.phantom_pairs import STILL, phantom_grid, phantom_pair

pytestmark = pytest.mark.usefixtures("on_tiny_model")


@pytest.fixture(scope="module")
def visits(tmp_path_factory) -> tuple[Path, Path]:
    """Series of one patient, 90 days apart: one nodule grew, and one is new."""
    folder = tmp_path_factory.mktemp("visits")
    grid = phantom_grid((80, 112, 152), (3.75, 2.5, 2.5))
    pair = phantom_pair(5, [(9.0, 13.0), (None, 12.0)], motion=STILL, current_grid=grid, prior_grid=grid)
    for name, volume, day in (("current", pair.current, "20240401"), ("prior", pair.prior, "20240102")):

        def dated(dataset, _z, day=day):
            dataset.AcquisitionDate = day

        write_dicom_series(volume, folder / name, edit=dated)
    return folder / "current", folder / "prior"


def test_what_changed_is_in_the_document_and_in_the_table(run, visits, tmp_path):
    current, prior = visits
    result = run("analyse", current, "--prior", prior, "--output", tmp_path)
    assert result.exit_code == 0, result.stderr
    comparison = json.loads((tmp_path / "result.json").read_text())["comparison"]
    assert comparison["days_between"] == 90
    assert comparison["registration"]["usable"]
    grown = [match for match in comparison["matched"] if match["growth"]["by_volume"] == "grown"]
    assert any(match["growth"]["doubling_time_days"] == pytest.approx(56.6, rel=0.6) for match in grown)
    assert "new" in {one["status"] for one in comparison["only_current"]}
    shown = result.stdout
    assert "90 days before" in shown
    assert "grown, +" in shown
    assert "Not for diagnosis" in shown
    assert "2024" not in shown


def test_a_prior_of_another_patient_is_an_unusable_scan(run, visits, tmp_path):
    current, _ = visits
    pair = phantom_pair(
        5,
        [],
        motion=STILL,
        **dict.fromkeys(("current_grid", "prior_grid"), phantom_grid((60, 70, 95), (5.0, 4.0, 4.0))),
    )
    write_dicom_series(pair.prior, tmp_path / "other", patient=PhantomPatient(patient_id="SECRET-7"))
    result = run("analyse", current, "--prior", tmp_path / "other")
    assert result.exit_code == ExitCode.SCAN
    assert "error[different_patient]: " in result.stderr
    assert "SECRET-7" not in result.stderr + result.stdout


def test_a_prior_that_is_not_there_is_wrong_usage(run, visits, tmp_path):
    assert run("analyse", visits[0], "--prior", tmp_path / "absent").exit_code == ExitCode.USAGE
