"""Every scan in an upload that holds several: series of one or many patients, volume files, in archives or loose.

What may be analysed is judged from headers, by the same rules as where one is chosen; no pixel is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.imaging.acceptance import Notice, RejectedSeries, SeriesSummary
from app.imaging.dicom_study import study_headers
from app.imaging.errors import ScanError
from app.imaging.inputs import InputFile, ScanFile
from app.imaging.read_options import ReadOptions
from app.imaging.reading import Received, nothing_readable, sort_received
from app.imaging.series import Series, group_series, summary
from app.imaging.series_choice import Judged, judge_series, refusal
from app.imaging.volume_files import volume_layout, volume_summary

_CHUNK = 1 << 20


@dataclass(frozen=True)
class FoundScan:
    """One scan that can be analysed, and the files of the upload that make it up."""

    summary: SeriesSummary
    files: tuple[ScanFile, ...]


@dataclass(frozen=True)
class UploadContents:
    """All that was sent: what can be analysed, what cannot and why, and files that are no image."""

    scans: tuple[FoundScan, ...]
    rejected: tuple[RejectedSeries, ...]
    ignored: tuple[Notice, ...]
    files_received: int
    """Members of archives counted singly."""


def find_scans(files: Sequence[InputFile], scratch: Path, options: ReadOptions) -> UploadContents:
    """Find every scan of an upload.

    Parameters
    ----------
    files
        As they were sent.
    scratch
        Folder for what has to be inflated. The scans lie there: the caller removes it when they are taken out.
    options
        Limits, for the whole upload; repairs that are permitted.

    Raises
    ------
    UnreadableScan, UploadTooLarge
        An archive or a DICOM header is damaged or over a limit. Nothing is taken then: the slice that cannot be read
        may be the last of a series that would look whole without it.
    ScanError
        There is no scan that can be analysed; says why.
    """
    received = sort_received(files, scratch, options.limits)
    if not received.dicom and not received.volumes:
        raise nothing_readable(received)
    directories: list[Notice] = []
    judged = Judged((), (), ())
    if received.dicom:
        headers, directories = study_headers(received.dicom, scratch, options, lambda _frames: None)
        judged = judge_series(group_series(headers), options)
    volumes, refused = _volumes(received, options)
    rejected = (*judged.rejected, *(volume for volume, _ in refused))
    if not judged.fitting and not volumes:
        raise refusal(rejected, (*judged.faults, *(fault for _, fault in refused)))
    by_index = {file.index: file for file in received.dicom}
    series = [
        FoundScan(summary(each, stack.spacing_zyx_mm), _files_of(each, by_index)) for each, stack in judged.fitting
    ]
    used = {file.index for volume in volumes for file in volume.files}
    ignored = [
        notice
        for notice in (*received.ignored, *directories)
        if notice.code != "not_preferred" and notice.values.get("file") not in used
    ]
    return UploadContents(
        scans=(*series, *volumes),
        rejected=rejected,
        ignored=tuple(ignored),
        files_received=received.count,
    )


def lay_out(files: Sequence[ScanFile], folder: Path) -> list[InputFile]:
    """Make files of their own, in an empty folder, of what may be byte ranges inside an archive."""
    laid = []
    for number, file in enumerate(files):
        path = folder / f"{number:06d}"
        if not _linked(file, path):
            with path.open("xb") as out:
                for start in range(0, file.size, _CHUNK):
                    out.write(file.read(start, _CHUNK))
        laid.append(InputFile(path, file.name))
    return laid


def _volumes(
    received: Received, options: ReadOptions
) -> tuple[list[FoundScan], list[tuple[RejectedSeries, ScanError]]]:
    volumes, refused = [], []
    for file, kind in received.volumes:
        try:
            header, samples = volume_layout(file, kind, received.others, options.limits)
        except ScanError as fault:
            notice = Notice(fault.code, fault.message, {"file": file.index, **fault.values})
            refused.append((RejectedSeries(SeriesSummary(None, None, 0), (notice,)), fault))
            continue
        parts = (file,) if samples is file else (file, samples)
        volumes.append(FoundScan(volume_summary(header), parts))
    return volumes, refused


def _files_of(series: Series, received: dict[int, ScanFile]) -> tuple[ScanFile, ...]:
    """As they were sent: a header may point to an inflated copy."""
    indices = sorted({header.file.index for header in (*series.slices, *series.localizers)})
    return tuple(received[index] for index in indices)


def _linked(file: ScanFile, path: Path) -> bool:
    """A second name for a file that is sent as it is; False where there is none, or the file system has none."""
    if file.offset or file.size != file.path.stat().st_size:
        return False
    try:
        os.link(file.path, path)
    except OSError:
        return False
    return True
