"""What becomes of each attribute of a CT image when it is de-identified: the profile as data.

Source: DICOM PS3.15 2024b, Annex E, table E.1-1, column "Basic Prof.", with the options of E.3.6 and E.3.7. Where the
table leaves a choice (X/Z, X/D, Z/D, X/Z/D) the first listed here is the one made: what the CT Image and the Enhanced
CT Image IOD (PS3.3 A.3, A.38) need is emptied or replaced, all else is removed.

The table names what is dangerous. Here it is turned round: an attribute that is not listed below is removed, be it in
the table, private, retired, or not known to this program. Stricter than the table on purpose: free text that the table
lets pass (Manufacturer, Code Meaning, Position Reference Indicator, ...) is emptied, replaced or removed too.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Action(StrEnum):
    """As in PS3.15 E.1.1; X (remove) is what happens to everything that has none."""

    DUMMY = "D"
    """Another value of no meaning."""
    EMPTY = "Z"
    KEEP = "K"
    """Where it has the form that its VR demands; otherwise it is removed."""
    UID = "U"
    """Another UID, the same one for the same UID everywhere."""


_UIDS = (
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "DimensionOrganizationUID",
    "ConcatenationUID", "SynchronizationFrameOfReferenceUID", "IrradiationEventUID", "AcquisitionUID",
)  # fmt: skip
_EMPTIED = (
    "AccessionNumber", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyDate", "StudyID", "StudyTime",
    "PositionReferenceIndicator", "AcquisitionContextSequence",
)  # fmt: skip
_REPLACED = (
    "PatientName", "PatientID", "ContrastBolusAgent", "ContentDate", "ContentTime", "AcquisitionDateTime",
    "FrameAcquisitionDateTime", "FrameReferenceDateTime", "StackID", "CodeMeaning", "Manufacturer",
    "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "ImageFilter", "FilterType",
)  # fmt: skip

# Kept: numbers, codes of defined terms, and sequences of nothing else. By the modules of the two IODs.
_IMAGE = (
    "SOPClassUID", "Modality", "ImageType", "InstanceNumber", "SeriesNumber", "AcquisitionNumber",
    "ImagesInAcquisition", "QualityControlImage", "BurnedInAnnotation", "RecognizableVisualFeatures",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "PresentationLUTShape",
    "BodyPartExamined", "Laterality", "PatientPosition", "PatientOrientation", "NumberOfFrames",
    "ContentQualification", "MultienergyCTAcquisition",
)  # fmt: skip
_PLANE = (
    "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices",
    "SliceLocation",
)  # fmt: skip
_PIXELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "PixelAspectRatio",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SmallestImagePixelValue",
    "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope",
    "RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction",
)  # fmt: skip
_CT = (
    "ScanOptions", "KVP", "DataCollectionDiameter", "ReconstructionDiameter", "DistanceSourceToDetector",
    "DistanceSourceToPatient", "GantryDetectorTilt", "TableHeight", "RotationDirection", "ExposureTime",
    "XRayTubeCurrent", "Exposure", "ExposureInuAs", "GeneratorPower", "FocalSpots", "ConvolutionKernel",
    "RevolutionTime", "SingleCollimationWidth", "TotalCollimationWidth", "TableSpeed", "TableFeedPerRotation",
    "SpiralPitchFactor", "DataCollectionCenterPatient", "ReconstructionTargetCenterPatient", "ExposureModulationType",
    "EstimatedDoseSaving", "CTDIvol", "CalciumScoringMassFactorPatient", "CalciumScoringMassFactorDevice",
    "EnergyWeightingFactor", "AcquisitionType", "WaterEquivalentDiameter", "IsocenterPosition",
)  # fmt: skip
_FRAMES = (
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence",
    "PlanePositionSequence", "PlaneOrientationSequence", "FrameContentSequence", "FrameAcquisitionNumber",
    "FrameAcquisitionDuration", "TemporalPositionIndex", "InStackPositionNumber", "DimensionIndexValues",
    "DimensionOrganizationSequence", "DimensionOrganizationType", "DimensionIndexSequence", "DimensionIndexPointer",
    "FunctionalGroupPointer", "FrameAnatomySequence", "FrameLaterality", "AnatomicRegionSequence", "CodeValue",
    "CodingSchemeDesignator", "CodingSchemeVersion", "FrameVOILUTSequence", "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence", "FrameType", "PixelPresentation", "VolumetricProperties",
    "VolumeBasedCalculationTechnique", "IrradiationEventIdentificationSequence", "AcquisitionDuration",
    "InConcatenationNumber", "InConcatenationTotalNumber", "ConcatenationFrameOffsetNumber",
)  # fmt: skip
_ENHANCED_CT = (
    "CTAcquisitionTypeSequence", "TubeAngle", "ConstantVolumeFlag", "FluoroscopyFlag", "CTAcquisitionDetailsSequence",
    "ReferencedPathIndex", "CTTableDynamicsSequence", "CTPositionSequence", "TablePosition", "CTGeometrySequence",
    "DistanceSourceToDataCollectionCenter", "CTReconstructionSequence", "ReconstructionAlgorithm",
    "ConvolutionKernelGroup", "ReconstructionFieldOfView", "ReconstructionPixelSpacing", "ReconstructionAngle",
    "CTExposureSequence", "ExposureTimeInms", "XRayTubeCurrentInmA", "ExposureInmAs", "CTDIPhantomTypeCodeSequence",
    "CTXRayDetailsSequence", "FilterMaterial",
)  # fmt: skip

BASIC_PROFILE: dict[str, Action] = {
    **dict.fromkeys(_UIDS, Action.UID),
    **dict.fromkeys(_EMPTIED, Action.EMPTY),
    **dict.fromkeys(_REPLACED, Action.DUMMY),
    **dict.fromkeys((*_IMAGE, *_PLANE, *_PIXELS, *_CT, *_FRAMES, *_ENHANCED_CT), Action.KEEP),
}
"""By keyword, at every level of nesting."""

PATIENT_CHARACTERISTICS = (
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PregnancyStatus",
    "SmokingStatus",
)
"""Kept under the Retain Patient Characteristics Option (E.3.7). Its free text (Ethnic Group, Allergies, Patient State,
Pre-Medication, Special Needs) is removed all the same."""

DATES_AND_TIMES = (
    "StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime",
    "ContentDate", "ContentTime", "FrameAcquisitionDateTime", "FrameReferenceDateTime",
)  # fmt: skip
"""Moved by the same number of days for the same patient under the Retain Longitudinal Temporal Information With
Modified Dates Option (E.3.6)."""

METHOD_CODES = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "modified_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
}
"""De-identification Method Code Sequence, of CID 7050 (scheme DCM)."""

_CODE_VALUE = r"[A-Za-z0-9.\-]{1,16}"
FORMS: dict[str, re.Pattern[str]] = {
    "AE": re.compile(r"(?!)"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
    "DA": re.compile(r"\d{8}"),
    "DS": re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *"),
    "DT": re.compile(r"\d{8}(\d{2,6}(\.\d{1,6})?)?([+-]\d{4})?"),
    "IS": re.compile(r" *[+-]?\d{1,12} *"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)? *"),
    "UI": re.compile(r"[0-9.]{1,64}"),
}
"""What a text that is kept must look like, by VR; a VR that is in neither mapping is not kept as text at all."""
NUMBERS = ("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT")
TEXT_FORMS: dict[str, re.Pattern[str]] = {
    "ConvolutionKernel": re.compile(r"[A-Za-z0-9 _.+/\-]{1,16}"),
    "RescaleType": re.compile(r"HU|US|OD|HU_MOD|UNSPECIFIED|PCT|CPS|NONE"),
    "PatientSex": re.compile(r"[MFO]"),
    "SmokingStatus": re.compile(r"YES|NO|UNKNOWN"),
    "CodeValue": re.compile(_CODE_VALUE),
    "CodingSchemeDesignator": re.compile(r"DCM|SCT|SRT|SNM3|99SDM|FMA|UCUM"),
    "CodingSchemeVersion": re.compile(r"[0-9.]{1,16}"),
}
"""The few texts that are kept: by keyword, what they must look like."""
