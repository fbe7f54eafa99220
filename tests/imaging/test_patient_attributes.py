"""Age and sex are read from the series that is analysed, and shown nowhere of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.imaging.patient_attributes import PatientAttributes
from app.imaging.reading import read_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from app.phantom.files import write_nifti
from tests.imaging.dicom_worlds import options, tiny_ct


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_from_the_headers_of_the_series(tmp_path: Path, enhanced: bool) -> None:
    patient = PhantomPatient(sex="F", age="063Y")
    volume, report = read_ct(write_dicom_series(tiny_ct(), tmp_path, enhanced=enhanced, patient=patient), options())
    assert volume.patient == PatientAttributes(63.0, "female")
    assert "63" not in repr(volume.patient)
    assert "female" not in repr(volume.patient) + repr(report)


def test_what_is_not_there_is_not_known(tmp_path: Path) -> None:
    patient = PhantomPatient(sex="O", age="")
    assert (
        read_ct(write_dicom_series(tiny_ct(), tmp_path, patient=patient), options())[0].patient == PatientAttributes()
    )
    assert read_ct(write_nifti(tiny_ct(), tmp_path / "ct.nii"), options())[0].patient is None
