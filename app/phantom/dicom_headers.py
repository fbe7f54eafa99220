"""The DICOM attributes of a synthetic chest CT that do not depend on how its slices are stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from app.imaging.volume import CtVolume, DicomIdentity, SliceIdentity

_IMPLEMENTATION_CLASS_UID = UID("2.25.172964826430275041262318471012385236143")


def decimal_string(value: float) -> str:
    """A DS value of at most 16 characters.

    Rounded to 1e-10 first: what lies a few units in the last place below a power of ten (-99.99999999999996) is
    otherwise written with 17 by pydicom 3.0.2.
    """
    return format_number_as_ds(round(float(value), 10))


@dataclass(frozen=True)
class PhantomPatient:
    """The synthetic patient written into the headers."""

    name: str = "PHANTOM^CHEST"
    patient_id: str = "PHANTOM-0001"
    birth_date: str = "19600101"
    sex: str = "O"
    age: str = "060Y"


@dataclass(frozen=True)
class SeriesAttributes:
    """What a test may want to say about the series; the defaults are an ordinary thin chest series."""

    modality: str = "CT"
    series_number: int = 2
    series_description: str = "CHEST PHANTOM"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    body_part_examined: str = "CHEST"
    convolution_kernel: str = "STANDARD"
    patient_position: str = "HFS"
    slice_thickness_mm: float | None = None
    """None: the distance between slices."""
    rescale_intercept: int = -1024
    """Stored values are unsigned when no voxel lies below it, signed otherwise."""


PHANTOM_PATIENT = PhantomPatient()
ORDINARY_SERIES = SeriesAttributes()


def phantom_uid(*parts: str) -> UID:
    """UID under the root 2.25, the same for the same parts."""
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()
    # The figure is that of a UUID of version 8 (custom), which PS3.5 B.2 asks a 2.25 UID to be.
    number = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return UID(f"2.25.{number}")


def identity_of(volume: CtVolume, patient: PhantomPatient, series: SeriesAttributes) -> DicomIdentity:
    """The volume's own identity, or UIDs derived from its content.

    The study and the frame of reference follow from the patient, so that several volumes of one phantom patient make
    one study; series and images follow from voxels, grid and `SeriesAttributes` too. Re-encoding keeps all of them.
    """
    if volume.identity is not None and len(volume.identity.slices) == len(volume.hu):
        return volume.identity
    content = hashlib.sha256(np.ascontiguousarray(volume.hu).tobytes() + volume.grid.affine.tobytes()).hexdigest()
    study_uid = phantom_uid("study", repr(patient))
    if volume.identity is not None:
        study_uid = UID(volume.identity.study_instance_uid)
    series_uid = phantom_uid("series", repr(patient), repr(series), content)
    if volume.identity is not None:
        series_uid = UID(volume.identity.series_instance_uid)
    return DicomIdentity(
        study_instance_uid=study_uid,
        series_instance_uid=series_uid,
        frame_of_reference_uid=phantom_uid("frame of reference", repr(patient)),
        slices=tuple(
            # Scanners count from the head, against the z axis of an ordinary volume.
            SliceIdentity(phantom_uid("image", series_uid, str(z)), instance_number=len(volume.hu) - z)
            for z in range(len(volume.hu))
        ),
    )


def new_dataset(sop_class_uid: UID, sop_instance_uid: str) -> Dataset:
    """Empty dataset with file meta; the transfer syntax is set with the pixel data."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.ImplementationClassUID = _IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = "LUNGNODULE"
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return dataset


def add_patient_and_study(dataset: Dataset, patient: PhantomPatient, identity: DicomIdentity) -> None:
    """Patient, General Study and Patient Study modules."""
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    dataset.PatientBirthDate = patient.birth_date
    dataset.PatientSex = patient.sex
    dataset.PatientAge = patient.age
    dataset.StudyInstanceUID = identity.study_instance_uid
    dataset.StudyID = "1"
    dataset.StudyDate = "20260101"
    dataset.StudyTime = "120000"
    dataset.StudyDescription = "SYNTHETIC CHEST CT"
    dataset.AccessionNumber = "PHANTOM1"
    dataset.ReferringPhysicianName = ""


def add_series_and_equipment(dataset: Dataset, series: SeriesAttributes, identity: DicomIdentity) -> None:
    """General Series, Frame of Reference and (Enhanced) General Equipment modules."""
    dataset.Modality = series.modality
    dataset.SeriesInstanceUID = identity.series_instance_uid
    dataset.SeriesNumber = series.series_number
    dataset.SeriesDate = "20260101"
    dataset.SeriesTime = "120100"
    dataset.SeriesDescription = series.series_description
    dataset.ProtocolName = "CHEST PHANTOM"
    dataset.BodyPartExamined = series.body_part_examined
    dataset.PatientPosition = series.patient_position
    dataset.FrameOfReferenceUID = identity.frame_of_reference_uid or phantom_uid("frame", identity.series_instance_uid)
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "lungnodule"
    dataset.ManufacturerModelName = "Chest phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "phantom 1"
    dataset.InstitutionName = "Synthetic data"


def stored_values(volume: CtVolume, series: SeriesAttributes) -> NDArray[np.int16] | NDArray[np.uint16]:
    """Voxels as stored, (z, y, x): unsigned when nothing lies below the rescale intercept.

    Raises
    ------
    ValueError
        If a voxel does not fit 16 bits with this intercept.
    """
    stored = volume.hu.astype(np.int32) - series.rescale_intercept
    low, high = int(stored.min()), int(stored.max())
    limits = np.iinfo(np.uint16 if low >= 0 else np.int16)
    if low < limits.min or high > limits.max:
        raise ValueError(
            f"stored values {low}..{high} do not fit 16 bits with rescale_intercept {series.rescale_intercept}"
        )
    return stored.astype(np.uint16) if low >= 0 else stored.astype(np.int16)


def in_plane_directions(volume: CtVolume) -> list[float]:
    """ImageOrientationPatient: direction along a row (the x axis), then along a column (the y axis).

    Raises
    ------
    ValueError
        If the two are not orthogonal, which DICOM cannot express. A z axis that leans over the slices is allowed: it is
        how a tilted gantry looks.
    """
    direction = volume.grid.direction_lps_zyx
    row, column = direction[:, 2], direction[:, 1]
    if abs(float(row @ column)) > 1e-4:
        raise ValueError(f"rows and columns are not orthogonal (cosine {float(row @ column):.5f}); DICOM cannot say so")
    return [float(v) for v in (*row, *column)]


def slice_spacing_mm(volume: CtVolume) -> float:
    """Distance between neighbouring slices along the normal of their planes, in mm."""
    direction = volume.grid.direction_lps_zyx
    normal = np.cross(direction[:, 2], direction[:, 1])
    return float(abs(normal @ volume.grid.affine[:3, 0]) / np.linalg.norm(normal))
