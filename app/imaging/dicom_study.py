"""The DICOM half of `read_ct`: headers of all files, the series that fits, its stack, its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import AcceptanceReport, Notice
from app.imaging.child_process import PixelWorkers
from app.imaging.dicom_geometry import Stack
from app.imaging.dicom_headers import read_slice_headers
from app.imaging.dicom_pixels import is_compressed, read_hu
from app.imaging.dicom_values import ReadBudget
from app.imaging.errors import UnsupportedFormat
from app.imaging.inputs import ScanFile
from app.imaging.patient_attributes import patient_attributes
from app.imaging.quality import quality_warnings, volume_warnings
from app.imaging.read_options import ReadOptions
from app.imaging.series import group_series, summary
from app.imaging.series_choice import SeriesChoice, choose_series
from app.imaging.slice_header import SliceHeader
from app.imaging.volume import CtVolume, DicomIdentity, SliceIdentity

_HEADER_SHARE = 0.3
"""Part of the reading time that headers take, for the progress bar."""
_DICOMDIR_STORAGE = "1.2.840.10008.1.3.10"


def read_study(
    files: Sequence[ScanFile], scratch: Path, options: ReadOptions, files_received: int, ignored: Sequence[Notice]
) -> tuple[CtVolume, AcceptanceReport]:
    """Read the series that fits, or the one named, from DICOM files in any order.

    Parameters
    ----------
    files
        DICOM files, a whole study with whatever came beside it.
    scratch
        Folder for inflated datasets; the caller removes it.
    options
        Which series, which repairs, which limits.
    files_received, ignored
        For the report.

    Raises
    ------
    NotChestCt, SeriesSelectionError, IrregularSeries, UnreadableScan, UnsupportedFormat, UploadTooLarge
        See `app.imaging.series_choice.choose_series` and `app.imaging.dicom_pixels.read_hu`.
    """
    limits = options.limits
    with PixelWorkers(limits.decode_workers, limits.decode_memory_bytes, limits.decode_timeout_s) as workers:
        headers, directories = study_headers(files, scratch, options, workers.start)
        choice = choose_series(group_series(headers), options)
        hu = _read_pixels(choice.stack, options, workers)
    first = choice.series.first
    patient = patient_attributes(first.patient_age, first.patient_sex)
    volume = CtVolume(hu, choice.stack.grid, _identity(choice), patient, first.visit)
    localizers = [
        Notice("localizer", "A localizer image of the same series was left out.", {"file": header.file.index})
        for header in choice.series.localizers
    ]
    report = AcceptanceReport(
        source_format="dicom" if choice.series.first.frame_number is None else "dicom-enhanced",
        files_received=files_received,
        files_ignored=(*ignored, *directories, *localizers, *choice.stack.ignored),
        chosen=summary(choice.series, choice.stack.spacing_zyx_mm),
        rejected=choice.rejected,
        repairs=choice.stack.repairs,
        warnings=(
            *choice.warnings,
            *choice.stack.warnings,
            *quality_warnings(choice.series, choice.stack.grid),
            *volume_warnings(volume),
        ),
    )
    return volume, report


def study_headers(
    files: Sequence[ScanFile], scratch: Path, options: ReadOptions, on_compressed: Callable[[int], object]
) -> tuple[list[SliceHeader], list[Notice]]:
    """Headers of all slices, and notices about directories.

    Parameters
    ----------
    files, scratch, options
        As in `read_study`.
    on_compressed
        Called, perhaps often, with the number of frames that may have to be decoded.

    Raises
    ------
    UnreadableScan, UploadTooLarge
        See `app.imaging.dicom_headers.read_slice_headers`.
    UnsupportedFormat
        There is nothing but directories.
    """
    headers: list[SliceHeader] = []
    directories = []
    limits = options.limits
    budget = ReadBudget(limits.max_header_reads + limits.header_reads_per_file * len(files))
    for done, file in enumerate(files, start=1):
        found = read_slice_headers(file, scratch, limits, budget)
        if found[0].sop_class_uid == _DICOMDIR_STORAGE:
            directories.append(Notice("dicomdir", "A DICOMDIR is not followed.", {"file": file.index}))
        else:
            headers += found
            if is_compressed(found[0]):
                on_compressed(len(files) * len(found))
        options.report_progress(_HEADER_SHARE * done / len(files))
    if not headers:
        raise UnsupportedFormat(
            "A DICOMDIR alone holds no image. Send the files it lists.",
            code="not_dicom",
            values={"files": len(files)},
        )
    return headers, directories


def _read_pixels(stack: Stack, options: ReadOptions, workers: PixelWorkers) -> NDArray[np.int16]:
    hu = read_hu(
        stack.headers,
        workers,
        lambda fraction: options.report_progress(_HEADER_SHARE + (1 - _HEADER_SHARE) * fraction),
    )
    for z in stack.interpolated:
        hu[z] = (hu[z - 1].astype(np.int32) + hu[z + 1]) // 2
    return hu


def _identity(choice: SeriesChoice) -> DicomIdentity:
    first = choice.series.first
    return DicomIdentity(
        study_instance_uid=first.study_instance_uid or "",
        series_instance_uid=choice.series.uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        slices=tuple(
            SliceIdentity(
                header.sop_instance_uid or "",
                header.instance_number,
                header.frame_number,
                header.sop_class_uid or SliceIdentity.sop_class_uid,
            )
            for header in choice.stack.headers
        ),
    )
