"""The DICOM half of `read_ct`: headers of all files, the series that fits, its stack, its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import AcceptanceReport, Notice, RejectedSeries
from app.imaging.dicom_geometry import Stack, stack_slices
from app.imaging.dicom_headers import read_slice_headers
from app.imaging.dicom_pixels import read_hu, same_pixels
from app.imaging.errors import NotChestCt, ScanError, SeriesSelectionError
from app.imaging.inputs import ScanFile
from app.imaging.pixel_checks import check_pixels
from app.imaging.quality import quality_warnings, volume_warnings
from app.imaging.read_options import ReadOptions
from app.imaging.series import (
    RULE,
    Series,
    group_series,
    is_other_body_part,
    preference,
    rejection_reasons,
    summary,
    uids,
)
from app.imaging.slice_header import SliceHeader
from app.imaging.volume import CtVolume, DicomIdentity, SliceIdentity

_HEADER_SHARE = 0.3
"""Part of the reading time that headers take, for the progress bar."""
_DICOMDIR_STORAGE = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class _Choice:
    series: Series
    stack: Stack
    rejected: tuple[RejectedSeries, ...]
    warnings: tuple[Notice, ...] = ()


def read_study(
    files: Sequence[ScanFile], scratch: Path, options: ReadOptions, files_received: int, ignored: Sequence[Notice]
) -> tuple[CtVolume, AcceptanceReport]:
    """Read the series that fits, or the one named, from DICOM files in any order.

    Raises
    ------
    NotChestCt, SeriesSelectionError, IrregularSeries, UnreadableScan, UnsupportedFormat, UploadTooLarge
    """
    headers: list[SliceHeader] = []
    directories = []
    for done, file in enumerate(files, start=1):
        found = read_slice_headers(file, scratch, options.limits)
        if found[0].sop_class_uid == _DICOMDIR_STORAGE:
            directories.append(Notice("dicomdir", "A DICOMDIR is not followed.", {"file": file.index}))
        else:
            headers += found
        options.report_progress(_HEADER_SHARE * done / len(files))
    choice = _choose(group_series(headers), options)
    volume = CtVolume(_read_pixels(choice.stack, options), choice.stack.grid, _identity(choice))
    report = AcceptanceReport(
        source_format="dicom" if choice.series.first.frame_number is None else "dicom-enhanced",
        files_received=files_received,
        files_ignored=(*ignored, *directories, *choice.stack.ignored),
        chosen=summary(choice.series, _spacing(choice.stack)),
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


def _choose(series: Sequence[Series], options: ReadOptions) -> _Choice:
    if options.series_uid is not None:
        return _named(series, options)
    rejected, fitting, faults = [], [], []
    for each in series:
        reasons = rejection_reasons(each, options.limits)
        if not reasons and is_other_body_part(each):
            values = {"body_part": each.first.body_part}
            reasons = (Notice("body_part", "BodyPartExamined names a part without lungs.", values),)
        if reasons:
            rejected.append(RejectedSeries(summary(each), reasons))
            continue
        try:
            fitting.append((each, _stacked(each, options)))
        except ScanError as fault:
            faults.append(fault)
            rejected.append(RejectedSeries(summary(each), (Notice(fault.code, fault.message, fault.values),)))
    if not fitting:
        raise faults[0] if len(faults) == 1 else _none_fits(rejected)
    fitting.sort(key=lambda pair: preference(pair[0]))
    best, others = fitting[0], fitting[1:]
    if others and preference(others[0][0]) == preference(best[0]):
        alike = [each for each, _ in fitting if preference(each) == preference(best[0])]
        raise SeriesSelectionError(
            f"{len(alike)} series fit equally well ({RULE}). Name one of them in series_uid.",
            code="ambiguous_series",
            values={"series_instance_uids": uids(alike)},
        )
    notice = Notice("not_preferred", f"Another series is preferred: {RULE}.")
    rejected += [RejectedSeries(summary(each, _spacing(stack)), (notice,)) for each, stack in others]
    warnings: tuple[Notice, ...] = ()
    if others:
        warnings = (
            Notice(
                "several_series",
                f"{len(fitting)} series fit; chosen by: {RULE}.",
                {"series_instance_uids": uids([each for each, _ in fitting])},
            ),
        )
    return _Choice(*best, tuple(rejected), warnings)


def _named(series: Sequence[Series], options: ReadOptions) -> _Choice:
    wanted = [each for each in series if each.uid == options.series_uid]
    if not wanted:
        raise SeriesSelectionError(
            "The series named in series_uid was not sent. Name one of those listed.",
            code="series_not_found",
            values={"series_instance_uids": uids(series)},
        )
    reasons = rejection_reasons(wanted[0], options.limits)
    rejected = tuple(
        RejectedSeries(summary(each), (Notice("not_requested", "Another series was named by the caller."),))
        for each in series
        if each is not wanted[0]
    )
    if reasons:
        raise _none_fits([RejectedSeries(summary(wanted[0]), reasons)])
    return _Choice(wanted[0], _stacked(wanted[0], options), rejected)


def _stacked(series: Series, options: ReadOptions) -> Stack:
    check_pixels(series.slices, options.limits)
    return stack_slices(series.slices, same_pixels, options.allow_repairs)


def _none_fits(rejected: Sequence[RejectedSeries]) -> NotChestCt:
    listed = [
        {
            "series_instance_uid": each.summary.series_instance_uid,
            "reasons": [{"code": r.code, "message": r.message, "values": r.values} for r in each.reasons],
        }
        for each in rejected
    ]
    first = rejected[0].reasons[0].message if len(rejected) == 1 else "The reasons are listed for each series."
    return NotChestCt(f"No series is an axial chest CT that can be analysed. {first}", values={"series": listed})


def _read_pixels(stack: Stack, options: ReadOptions) -> NDArray[np.int16]:
    hu = read_hu(
        stack.headers,
        options.limits,
        lambda fraction: options.report_progress(_HEADER_SHARE + (1 - _HEADER_SHARE) * fraction),
    )
    for z in stack.interpolated:
        hu[z] = (hu[z - 1].astype(np.int32) + hu[z + 1]) // 2
    return hu


def _spacing(stack: Stack) -> tuple[float, float, float]:
    z, y, x = (round(float(value), 6) for value in stack.grid.spacing_zyx_mm)
    return z, y, x


def _identity(choice: _Choice) -> DicomIdentity:
    first = choice.series.first
    return DicomIdentity(
        study_instance_uid=first.study_instance_uid or "",
        series_instance_uid=choice.series.uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        slices=tuple(
            SliceIdentity(
                h.sop_instance_uid or "",
                h.instance_number,
                h.frame_number,
                h.sop_class_uid or SliceIdentity.sop_class_uid,
            )
            for h in choice.stack.headers
        ),
    )
