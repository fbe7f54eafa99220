"""Days between two scans and whether they are of one patient: read from real headers, and never shown."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from app.imaging.reading import read_ct
from app.imaging.visit import Visit, day_of, patient_digest
from app.phantom.dicom_series import write_dicom_series
from tests.imaging.dicom_worlds import options, tiny_ct


def read(folder: Path, *, enhanced: bool = False, **attributes: str | None) -> Visit:
    def edit(dataset, _z):
        for name, value in attributes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)

    write_dicom_series(tiny_ct(), folder, edit=edit, enhanced=enhanced)
    return read_ct(folder, options())[0].visit


@pytest.mark.parametrize("enhanced", [False, True])
def test_days_and_patient_of_a_series(tmp_path, enhanced):
    earlier = read(tmp_path / "a", enhanced=enhanced, AcquisitionDate="20240228", PatientID="P-1")
    later = read(tmp_path / "b", enhanced=enhanced, AcquisitionDate="20240301", PatientID="P-1 ")
    assert later.days_since(earlier) == 2
    assert earlier.days_since(later) == -2
    assert later.is_same_patient(earlier) is True
    assert later.is_same_patient(read(tmp_path / "c", enhanced=enhanced, PatientID="P-2")) is False


def test_study_date_where_there_is_no_acquisition_date(tmp_path):
    acquired = read(tmp_path / "a", AcquisitionDate="20240110", StudyDate="20240101")
    begun = read(tmp_path / "b", AcquisitionDate=None, StudyDate="20240101")
    assert acquired.days_since(begun) == 9


def test_what_is_missing_or_no_date_is_not_known(tmp_path):
    whole = read(tmp_path / "a")
    for number, lacking in enumerate([{"AcquisitionDate": "", "StudyDate": ""}, {"PatientID": ""}]):
        visit = read(tmp_path / f"b{number}", **lacking)
        assert (whole.days_since(visit) is None) == ("StudyDate" in lacking)
        assert (whole.is_same_patient(visit) is None) == ("PatientID" in lacking)


@pytest.mark.parametrize(
    ("texts", "day"),
    [
        (("20240229",), date(2024, 2, 29)),
        (("20230229", "2024.03.01"), date(2024, 3, 1)),
        (("", None, "20240301120000.5+0100"), date(2024, 3, 1)),
        (("19000101",), None),
        (("2024", "yesterday"), None),
        ((), None),
    ],
)
def test_dates_as_dicom_writes_them(texts, day):
    assert day_of(*texts) == day


def test_a_visit_shows_neither_date_nor_identifier():
    visit = Visit(patient_digest(b"DOE-77"), date(2024, 3, 1))
    assert repr(visit) == "Visit()"
    assert patient_digest(b" \0") is None
