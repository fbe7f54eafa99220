"""`read_ct`: whatever was sent, as one CT volume in HU and a report of what was accepted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.imaging.acceptance import AcceptanceReport, Notice
from app.imaging.archive import is_zip, unpack
from app.imaging.dicom_headers import is_dicom, lacks_preamble
from app.imaging.dicom_study import read_study
from app.imaging.errors import ScanError, SeriesSelectionError, UnreadableScan, UnsupportedFormat, UploadTooLarge
from app.imaging.inputs import InputFile, ScanFile, Source, listed_files, plain_name
from app.imaging.quality import volume_warnings
from app.imaging.read_options import DUPLICATE_SLICES, MISSING_SLICES, REPAIRS, ReadLimits, ReadOptions
from app.imaging.volume import CtVolume
from app.imaging.volume_files import read_volume_file, volume_format

__all__ = [
    "DUPLICATE_SLICES",
    "MISSING_SLICES",
    "REPAIRS",
    "InputFile",
    "ReadLimits",
    "ReadOptions",
    "dicom_files",
    "read_ct",
]

_SNIFFED_BYTES = 352
"""Up to the magic of NIfTI, the last of all."""


def read_ct(source: Source | Sequence[Source], options: ReadOptions | None = None) -> tuple[CtVolume, AcceptanceReport]:
    """Read one chest CT.

    Parameters
    ----------
    source
        A file, a folder, a zip archive, or a list of them: the DICOM files of a study in any order and with any
        names, or one `.mha`, `.mhd` with its `.raw`, `.nii`, `.nii.gz` or `.nrrd`.
    options
        Which series, which repairs, which limits.

    Returns
    -------
    CtVolume, AcceptanceReport
        int16 HU (z, y, x) with its grid in patient LPS mm, and what was chosen, rejected, repaired.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    ScanError
        Any of its kinds, with a code and the values behind it.
    """
    options = options or ReadOptions()
    with tempfile.TemporaryDirectory(prefix="lungnodule-read-", dir=options.scratch_root) as folder:
        scratch = Path(folder)
        received = sort_received(listed_files(source), scratch, options.limits)
        if received.dicom:
            return read_study(received.dicom, scratch, options, received.count, received.ignored)
        if not received.volumes:
            raise nothing_readable(received)
        return _read_volume(received, options)


def dicom_files(source: Source | Sequence[Source], scratch: Path, limits: ReadLimits) -> tuple[ScanFile, ...]:
    """The DICOM files among what was sent, unpacked into ``scratch`` where needed; none for other formats.

    Raises
    ------
    FileNotFoundError, ScanError
        As `read_ct`.
    """
    return sort_received(listed_files(source), scratch, limits).dicom


@dataclass(frozen=True)
class Received:
    """What was sent, sorted by kind: DICOM files, volume files with their format, and the rest."""

    dicom: tuple[ScanFile, ...]
    volumes: tuple[tuple[ScanFile, str], ...]
    others: tuple[ScanFile, ...]
    ignored: tuple[Notice, ...]
    count: int


def sort_received(files: Sequence[InputFile], scratch: Path, limits: ReadLimits) -> Received:
    """Open archives and tell files apart by their content.

    Parameters
    ----------
    files
        As they were sent.
    scratch
        Folder for what has to be inflated; the caller removes it.
    limits
        Counts, sizes, ratio; for all archives together.

    Raises
    ------
    UploadTooLarge
        ``too_many_files``, ``too_large`` or ``compression_ratio``.
    UnreadableScan
        ``empty_upload``, or what is wrong with an archive.
    """
    found: list[ScanFile] = []
    ignored: list[Notice] = []
    for file in files:
        index = len(found) + len(ignored)
        scan_file = ScanFile(index, plain_name(file.name or file.path.name), file.path, 0, file.path.stat().st_size)
        if is_zip(scan_file.read(0, 4)):
            # What earlier archives took is gone: many archives are no way around the limits.
            left = limits.max_total_bytes - sum(each.size for each in found)
            unpacked = unpack(scan_file, scratch, replace(limits, max_total_bytes=max(0, left)), index)
            found += unpacked.files
            ignored += unpacked.ignored
        elif scan_file.size:
            found.append(scan_file)
        else:
            ignored.append(Notice("empty_file", "The file is empty.", {"file": index}))
    _check_sizes(found, limits)
    if not found:
        raise UnreadableScan("The upload is empty.", code="empty_upload", values={"files": len(ignored)})
    return _sorted_by_kind(found, ignored)


def _check_sizes(found: Sequence[ScanFile], limits: ReadLimits) -> None:
    total = sum(file.size for file in found)
    if len(found) > limits.max_files:
        raise UploadTooLarge(
            f"{len(found)} files were sent; at most {limits.max_files} are read.",
            code="too_many_files",
            values={"files": len(found), "max_files": limits.max_files},
        )
    if total > limits.max_total_bytes:
        raise UploadTooLarge(
            f"The files have {total} bytes; at most {limits.max_total_bytes} are read.",
            values={"bytes": total, "max_total_bytes": limits.max_total_bytes},
        )


def _sorted_by_kind(found: Sequence[ScanFile], ignored: Sequence[Notice]) -> Received:
    """Tell files apart by their content."""
    dicom, volumes, others, notices = [], [], [], list(ignored)
    for file in found:
        head = file.read(0, _SNIFFED_BYTES)
        kind = volume_format(head, file.name)
        if is_dicom(head):
            dicom.append(file)
        elif kind is not None:
            volumes.append((file, kind))
        else:
            others.append(file)
            notices.append(_unknown(file, head))
    if dicom:
        notices += [Notice("not_preferred", "DICOM images came with it.", {"file": file.index}) for file, _ in volumes]
    return Received(tuple(dicom), tuple(volumes), tuple(others), tuple(notices), len(found) + len(ignored))


def _unknown(file: ScanFile, head: bytes) -> Notice:
    if is_zip(head):
        return Notice("zip_nested", "A zip archive inside an archive is not opened.", {"file": file.index})
    if lacks_preamble(head):
        return Notice("no_preamble", "DICOM without the 128-byte preamble is not read.", {"file": file.index})
    return Notice("not_dicom", "Neither DICOM nor a volume file.", {"file": file.index})


def nothing_readable(received: Received) -> ScanError:
    """The error where neither DICOM nor a volume file came."""
    codes = {notice.code for notice in received.ignored}
    for code, advice in (
        ("zip_nested", "Send the inner archive itself."),
        ("no_preamble", "Send complete DICOM files, with preamble and file meta information."),
    ):
        if code in codes:
            return UnreadableScan(f"No image was found. {advice}", code=code, values={"files": received.count})
    return UnsupportedFormat(
        f"None of the {received.count} files is a DICOM image or a .mha, .mhd, .nii, .nii.gz or .nrrd volume.",
        code="not_dicom",
        values={"files": received.count},
    )


def _read_volume(received: Received, options: ReadOptions) -> tuple[CtVolume, AcceptanceReport]:
    if len(received.volumes) > 1 or options.series_uid is not None:
        raise SeriesSelectionError(
            f"{len(received.volumes)} volume files were sent. Send one, and name no series: only DICOM has them.",
            code="ambiguous_series" if options.series_uid is None else "series_not_found",
            values={"files": [file.index for file, _ in received.volumes]},
        )
    file, kind = received.volumes[0]
    read = read_volume_file(file, kind, received.others, options.limits, options.report_progress)
    return read.volume, AcceptanceReport(
        source_format=kind,
        files_received=received.count,
        files_ignored=tuple(each for each in received.ignored if each.values.get("file") != read.samples_file),
        chosen=read.summary,
        warnings=volume_warnings(read.volume),
    )
