"""Write any `CtVolume` as a DICOM series: classic CT Image Storage, or one Enhanced CT object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from app.imaging.volume import CtVolume, DicomIdentity
from app.phantom.dicom_enhanced import enhanced_dataset
from app.phantom.dicom_headers import (
    ORDINARY_SERIES,
    PHANTOM_PATIENT,
    PhantomPatient,
    SeriesAttributes,
    add_patient_and_study,
    add_series_and_equipment,
    decimal_string,
    identity_of,
    in_plane_directions,
    new_dataset,
    slice_spacing_mm,
    stored_values,
)
from app.phantom.pixel_encoding import set_pixel_data

Edit = Callable[[Dataset, int], None]
"""Called with each finished dataset and the z index of its slice just before it is written."""


def file_name_by_index(z: int) -> str:
    """IM0000.dcm for the first slice of the array, and so on."""
    return f"IM{z:04d}.dcm"


def write_dicom_series(
    volume: CtVolume,
    folder: Path,
    *,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    enhanced: bool = False,
    file_names: Callable[[int], str] = file_name_by_index,
    patient: PhantomPatient = PHANTOM_PATIENT,
    series: SeriesAttributes = ORDINARY_SERIES,
    edit: Edit | None = None,
) -> list[Path]:
    """Write a volume as a valid DICOM series of a synthetic patient.

    Parameters
    ----------
    volume
        Any orientation whose rows and columns are orthogonal. Its `DicomIdentity` is kept; without one the UIDs are
        derived from the content, so that the same volume has the same UIDs in every transfer syntax.
    folder
        Created when missing; files in it are overwritten.
    transfer_syntax_uid
        One of `app.phantom.pixel_encoding.TRANSFER_SYNTAXES`; all lossless.
    enhanced
        One multi-frame Enhanced CT object instead of a file for each slice.
    file_names
        Name of the file of array index z; called with 0 for an Enhanced object.
    patient, series
        What the headers say.
    edit
        Changes, or spoils, each dataset before it is written.

    Returns
    -------
    list of pathlib.Path
        The files in array order.

    Raises
    ------
    ValueError
        If the geometry, the range of values or the transfer syntax cannot be written.
    """
    syntax = UID(transfer_syntax_uid)
    folder.mkdir(parents=True, exist_ok=True)
    identity = identity_of(volume, patient, series)
    stored = stored_values(volume, series)
    if enhanced:
        dataset = enhanced_dataset(volume, patient, series, identity)
        set_pixel_data(dataset, stored, syntax)
        return [_write(dataset, 0, folder / file_names(0), syntax, edit)]
    paths = []
    for z in range(len(stored)):
        dataset = _slice_dataset(volume, z, patient, series, identity)
        set_pixel_data(dataset, stored[z : z + 1], syntax)
        paths.append(_write(dataset, z, folder / file_names(z), syntax, edit))
    return paths


def _write(dataset: Dataset, z: int, path: Path, syntax: UID, edit: Edit | None) -> Path:
    if edit is not None:
        edit(dataset, z)
    dataset.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return path


def _slice_dataset(
    volume: CtVolume,
    z: int,
    patient: PhantomPatient,
    series: SeriesAttributes,
    identity: DicomIdentity,
) -> Dataset:
    """CT Image IOD of one slice (PS3.3 A.3), without pixel data."""
    this = identity.slices[z]
    dataset = new_dataset(CTImageStorage, this.sop_instance_uid)
    add_patient_and_study(dataset, patient, identity)
    add_series_and_equipment(dataset, series, identity)
    dataset.InstanceNumber = this.instance_number
    dataset.ImageType = list(series.image_type)
    dataset.AcquisitionNumber = 1
    dataset.AcquisitionDate = dataset.ContentDate = "20260101"
    dataset.AcquisitionTime = dataset.ContentTime = "120105"
    dataset.ImageComments = "Synthetic phantom, not a patient"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    _add_image_plane(dataset, volume, z, series)
    _add_ct_image(dataset, series)
    return dataset


def _add_image_plane(dataset: Dataset, volume: CtVolume, z: int, series: SeriesAttributes) -> None:
    """Image Plane module; decimal strings as exact as their 16 characters allow."""
    _, row_spacing, column_spacing = volume.grid.spacing_zyx_mm
    position = volume.grid.to_patient((z, 0, 0))
    direction = volume.grid.direction_lps_zyx
    normal = np.cross(direction[:, 2], direction[:, 1])
    dataset.ImagePositionPatient = [decimal_string(v) for v in position]
    dataset.ImageOrientationPatient = [decimal_string(v) for v in in_plane_directions(volume)]
    dataset.PixelSpacing = [decimal_string(row_spacing), decimal_string(column_spacing)]
    dataset.SliceThickness = decimal_string(series.slice_thickness_mm or slice_spacing_mm(volume))
    dataset.SliceLocation = decimal_string(float(position @ normal))


def _add_ct_image(dataset: Dataset, series: SeriesAttributes) -> None:
    """CT Image and VOI LUT modules of an ordinary chest protocol."""
    dataset.RescaleIntercept = str(series.rescale_intercept)
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter = "-600"
    dataset.WindowWidth = "1500"
    dataset.WindowCenterWidthExplanation = "LUNG"
    dataset.KVP = "120"
    dataset.XRayTubeCurrent = 100
    dataset.ExposureTime = 500
    dataset.ConvolutionKernel = series.convolution_kernel
    dataset.GantryDetectorTilt = "0"
    dataset.DataCollectionDiameter = "500"
    dataset.ReconstructionDiameter = "360"
