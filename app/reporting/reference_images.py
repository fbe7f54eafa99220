"""What derived objects take from an original header: patient, study, series, place; only what is valid DICOM.

Real headers hold values that the standard forbids. A derived object that repeats them is refused by a PACS, or not
written at all, so a value that does not fit its VR is left out.
"""

from __future__ import annotations

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from app.imaging.dicom_headers import pydicom_silenced
from app.imaging.original_headers import PATIENT_AND_STUDY

_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "InstanceNumber", "ImageType", "AcquisitionNumber", "Rows",
    "Columns", "NumberOfFrames", "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_OF_FRAMES = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionOrganizationSequence",
    "DimensionIndexSequence",
)  # fmt: skip
_ALWAYS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Of type 2: there, if only empty."""


def reference_image(header: Dataset) -> Dataset:
    """A dataset without pixels that stands for an image where a derived object refers to it.

    Parameters
    ----------
    header
        As it was sent, text decoded.

    Returns
    -------
    Dataset
        In UTF-8 (``ISO_IR 192``); attributes of type 2 are there, if only empty.
    """
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    with pydicom_silenced():
        for keyword in (*PATIENT_AND_STUDY, *_IMAGE):
            if keyword in header and (element := _valid(header, keyword)) is not None:
                image.add(element)
        for keyword in _OF_FRAMES:
            if keyword in header:
                setattr(image, keyword, header[keyword].value)
        for keyword in _ALWAYS:
            if keyword not in image:
                setattr(image, keyword, None if keyword.endswith(("Date", "Time")) else "")
    return image


def _valid(header: Dataset, keyword: str) -> DataElement | None:
    """The element, or None where its value is not what its VR allows."""
    vr = dictionary_VR(keyword)
    try:
        element = header[keyword]
        values = element.value if element.VM > 1 else [element.value]
        for value in values:
            if value is not None and value != "" and vr not in ("US", "FD", "FL", "US or SS"):
                validate_value(vr, str(value), RAISE)
        return DataElement(element.tag, element.VR if " or " in vr else vr, element.value)
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return None
