from __future__ import annotations

import pydicom
import pytest

from app.cli.exits import ExitCode
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.files import write_metaimage
from app.phantom.nodules import NoduleSpec

pytestmark = pytest.mark.usefixtures("on_tiny_model")


@pytest.fixture(scope="module")
def volume():
    """Fine enough for the tiny model to find its nodule."""
    nodules = [NoduleSpec(20.0, "solid", "smooth", "free")]
    return phantom_ct(shape_zyx=(72, 160, 160), spacing_zyx_mm=(4.0, 2.5, 2.5), nodules=nodules).volume


def test_all_forms_of_a_dicom_scan(run, tmp_path, volume):
    write_dicom_series(volume, tmp_path / "scan")
    result = run("analyse", tmp_path / "scan", "--output", tmp_path / "out", "--formats", "all")
    assert result.exit_code == ExitCode.OK, result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    quick = {"result.json", "nodules.csv", "report.pdf", "fhir.json"}
    assert names == quick | {f"{kind}.dcm" for kind in ("sr", "seg", "gsps", "ko", "sc")}
    assert pydicom.dcmread(tmp_path / "out/sr.dcm").PatientID == "PHANTOM-0001"


def test_json_and_csv_unless_told(run, tmp_path, volume):
    path = write_metaimage(volume, tmp_path / "ct.mha")
    assert run("analyse", path, "--output", tmp_path / "out").exit_code == ExitCode.OK
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"result.json", "nodules.csv"}


def test_a_form_that_cannot_be_had_is_left_out_of_all_and_refused_by_name(run, tmp_path, volume):
    path = write_metaimage(volume, tmp_path / "ct.mha")
    assert run("analyse", path, "--output", tmp_path / "out", "--formats", "all").exit_code == ExitCode.OK
    assert not list((tmp_path / "out").glob("*.dcm"))
    refused = run("analyse", path, "--output", tmp_path / "out", "--formats", "pdf,sr")
    assert refused.exit_code == ExitCode.CHECK_FAILED
    assert "error[needs_dicom]" in refused.stderr


def test_an_unknown_format_is_wrong_usage_before_anything_is_read(run, tmp_path):
    refused = run("analyse", tmp_path, "--output", tmp_path, "--formats", "docx")
    assert refused.exit_code == ExitCode.USAGE
    assert "json, sr, seg" in refused.stderr
