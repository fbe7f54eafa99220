"""The headers of chosen images in full, for objects that refer to them and carry the same patient and study.

Analysis needs three dozen attributes and takes no others; what goes back to a PACS must repeat what came from it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from app.imaging.dicom_headers import PARSE_FAULTS, pydicom_silenced, read_slice_headers
from app.imaging.dicom_values import ReadBudget
from app.imaging.inputs import Source
from app.imaging.read_options import ReadLimits
from app.imaging.reading import dicom_files
from app.imaging.slice_header import SliceHeader, damaged

PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex",
    "OtherPatientIDs", "OtherPatientNames", "EthnicGroup", "PatientComments", "PatientIdentityRemoved",
    "DeidentificationMethod", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName", "PatientAge", "PatientSize", "PatientWeight", "Occupation",
    "AdditionalPatientHistory", "AdmittingDiagnosesDescription", "MedicalAlerts", "Allergies", "SmokingStatus",
    "PregnancyStatus", "LastMenstrualDate", "PatientState", "TimezoneOffsetFromUTC",
)  # fmt: skip
"""Repeated in every object, so that all of a study say the same of it (Patient, General Study, Patient Study)."""


def read_original_headers(
    source: Source | Sequence[Source], sop_instance_uids: Collection[str], limits: ReadLimits, scratch: Path
) -> dict[str, Dataset]:
    """Everything that comes before the pixels of the images named.

    Parameters
    ----------
    source
        As `app.imaging.reading.read_ct` takes it.
    sop_instance_uids
        Of the images that are wanted; the rest is passed over.
    limits
        Those that the scan was read under.
    scratch
        Folder for unpacked files; the caller removes it.

    Returns
    -------
    dict
        By SOPInstanceUID; those that are not in the source are absent. Values are as they were sent, not judged.

    Raises
    ------
    ScanError
        ``damaged_header`` and what `read_ct` raises for files it cannot read.
    """
    files = dicom_files(source, scratch, limits)
    budget = ReadBudget(limits.max_header_reads + limits.header_reads_per_file * len(files))
    missing, found = set(sop_instance_uids), {}
    for file in files:
        if not missing:
            break
        header = read_slice_headers(file, scratch, limits, budget)[0]
        if header.sop_instance_uid in missing:
            found[header.sop_instance_uid] = _whole_header(header)
            missing.discard(header.sop_instance_uid)
    return found


def _whole_header(header: SliceHeader) -> Dataset:
    end = header.pixels.offset if header.pixels else header.file.size
    with pydicom_silenced():
        try:
            dataset = pydicom.dcmread(BytesIO(header.file.read(0, end)), stop_before_pixels=True)
            dataset.decode()
        except PARSE_FAULTS:
            # Told apart from its cause, whose text may quote a tag value.
            pass
        else:
            return dataset
    raise damaged(header.file, "its header cannot be parsed in full")
