"""Enhanced CT Image IOD (PS3.3 A.38) with shared and per-frame functional groups."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import EnhancedCTImageStorage

from app.imaging.volume import CtVolume, DicomIdentity
from app.phantom.dicom_headers import (
    PhantomPatient,
    SeriesAttributes,
    add_patient_and_study,
    add_series_and_equipment,
    decimal_string,
    in_plane_directions,
    new_dataset,
    phantom_uid,
    slice_spacing_mm,
)

_ACQUIRED = "20260101120105"


def enhanced_dataset(
    volume: CtVolume, patient: PhantomPatient, series: SeriesAttributes, identity: DicomIdentity
) -> Dataset:
    """One multi-frame dataset of the volume, frame n + 1 for array index n, without pixel data.

    Its SOP instance UID is the first slice's.
    """
    dataset = new_dataset(EnhancedCTImageStorage, identity.slices[0].sop_instance_uid)
    add_patient_and_study(dataset, patient, identity)
    add_series_and_equipment(dataset, series, identity)
    _add_enhanced_image(dataset, volume, series)
    _add_dimensions(dataset)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(volume, series)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_groups(volume, z) for z in range(len(volume.hu))]
    return dataset


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _image_type(series: SeriesAttributes) -> list[str]:
    """Four values as C.8.16.1 wants them: the third is the kind of image, the fourth how it was derived."""
    flavor = "VOLUME" if series.image_type[2:3] in {(), ("AXIAL",)} else series.image_type[2]
    return [*series.image_type[:2], flavor, "NONE"]


def _add_enhanced_image(dataset: Dataset, volume: CtVolume, series: SeriesAttributes) -> None:
    """Enhanced CT Image, Acquisition Context and Multi-frame Functional Groups modules."""
    dataset.InstanceNumber = 1
    dataset.ImageType = _image_type(series)
    dataset.NumberOfFrames = len(volume.hu)
    dataset.AcquisitionNumber = 1
    dataset.AcquisitionDateTime = _ACQUIRED
    dataset.AcquisitionDuration = 2.0
    dataset.ContentDate = "20260101"
    dataset.ContentTime = "120105"
    dataset.ContentQualification = "RESEARCH"
    dataset.ImageComments = "Synthetic phantom, not a patient"
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.IsocenterPosition = [0.0, 0.0, 0.0]
    dataset.AcquisitionContextSequence = []


def _add_dimensions(dataset: Dataset) -> None:
    """Multi-frame Dimension module: one dimension, the place in the stack."""
    uid = phantom_uid("dimensions", dataset.SOPInstanceUID)
    pointer: BaseTag = Tag("InStackPositionNumber")
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=uid)]
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionIndexSequence = [
        _item(
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=Tag("FrameContentSequence"),
            DimensionOrganizationUID=uid,
            DimensionDescriptionLabel="Stack position",
        )
    ]


def _shared_groups(volume: CtVolume, series: SeriesAttributes) -> Dataset:
    """What all frames have in common."""
    _, row_spacing, column_spacing = volume.grid.spacing_zyx_mm
    thickness = series.slice_thickness_mm or slice_spacing_mm(volume)
    shared = Dataset()
    shared.PixelMeasuresSequence = [
        _item(
            PixelSpacing=[decimal_string(row_spacing), decimal_string(column_spacing)],
            SliceThickness=decimal_string(thickness),
        )
    ]
    shared.PlaneOrientationSequence = [
        _item(ImageOrientationPatient=[decimal_string(v) for v in in_plane_directions(volume)])
    ]
    shared.PixelValueTransformationSequence = [
        _item(RescaleIntercept=str(series.rescale_intercept), RescaleSlope="1", RescaleType="HU")
    ]
    shared.FrameVOILUTSequence = [_item(WindowCenter="-600", WindowWidth="1500", WindowCenterWidthExplanation="LUNG")]
    shared.FrameAnatomySequence = [
        _item(FrameLaterality="U", AnatomicRegionSequence=[_code("51185008", "SCT", "Chest")])
    ]
    shared.IrradiationEventIdentificationSequence = [
        _item(IrradiationEventUID=phantom_uid("irradiation", repr(series)))
    ]
    shared.CTImageFrameTypeSequence = [
        _item(
            FrameType=_image_type(series),
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
        )
    ]
    _add_ct_groups(shared, series)
    return shared


def _add_ct_groups(shared: Dataset, series: SeriesAttributes) -> None:
    """The CT functional groups that an ORIGINAL image must have (PS3.3 C.8.15.3)."""
    shared.CTAcquisitionTypeSequence = [_item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")]
    shared.CTAcquisitionDetailsSequence = [
        _item(
            RotationDirection="CW",
            RevolutionTime=0.5,
            SingleCollimationWidth=0.625,
            TotalCollimationWidth=40.0,
            TableHeight=150.0,
            GantryDetectorTilt=0.0,
            DataCollectionDiameter=500.0,
        )
    ]
    shared.CTTableDynamicsSequence = [_item(TableSpeed=80.0, TableFeedPerRotation=40.0, SpiralPitchFactor=1.0)]
    shared.CTGeometrySequence = [_item(DistanceSourceToDetector=950.0, DistanceSourceToDataCollectionCenter=541.0)]
    shared.CTReconstructionSequence = [
        _item(
            ReconstructionAlgorithm="FILTER_BACK_PROJ",
            ConvolutionKernel=series.convolution_kernel,
            ConvolutionKernelGroup="LUNG",
            ReconstructionDiameter=360.0,
            ReconstructionPixelSpacing=list(shared.PixelMeasuresSequence[0].PixelSpacing),
            ReconstructionAngle=360.0,
            ImageFilter="NONE",
        )
    ]
    shared.CTExposureSequence = [
        _item(
            ExposureTimeInms=500.0,
            XRayTubeCurrentInmA=100.0,
            ExposureInmAs=50.0,
            ExposureModulationType="NONE",
            CTDIvol=3.0,
            CTDIPhantomTypeCodeSequence=[_code("113691", "DCM", "IEC Body Dosimetry Phantom")],
        )
    ]
    shared.CTXRayDetailsSequence = [
        _item(
            KVP="120",
            FocalSpots="1.0",
            FilterType="FLAT",
            FilterMaterial="ALUMINUM",
            CalciumScoringMassFactorPatient=None,
        )
    ]


def _frame_groups(volume: CtVolume, z: int) -> Dataset:
    """Where one frame lies and its place in the stack."""
    position = volume.grid.to_patient((z, 0, 0))
    centre = volume.grid.to_patient((z, (volume.hu.shape[1] - 1) / 2, (volume.hu.shape[2] - 1) / 2))
    frame = Dataset()
    frame.FrameContentSequence = [
        _item(
            StackID="1",
            InStackPositionNumber=z + 1,
            DimensionIndexValues=[z + 1],
            FrameAcquisitionNumber=1,
            FrameAcquisitionDateTime=_ACQUIRED,
            FrameReferenceDateTime=_ACQUIRED,
            FrameAcquisitionDuration=500.0,
        )
    ]
    frame.PlanePositionSequence = [_item(ImagePositionPatient=[decimal_string(v) for v in position])]
    frame.CTPositionSequence = [
        _item(
            TablePosition=float(position[2]),
            ReconstructionTargetCenterPatient=[float(v) for v in centre],
            DataCollectionCenterPatient=[0.0, 0.0, float(np.round(centre[2], 3))],
        )
    ]
    return frame
