"""`read_ct`: whatever was sent, as one CT volume in HU and a report of what was accepted."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.imaging.acceptance import AcceptanceReport, Notice, SeriesSummary
from app.imaging.archive import is_zip, unpack
from app.imaging.dicom_headers import is_dicom
from app.imaging.dicom_study import read_study
from app.imaging.errors import SeriesSelectionError, UnreadableScan, UnsupportedFormat, UploadTooLarge
from app.imaging.inputs import InputFile, ScanFile, Source, listed_files
from app.imaging.itk_files import image_format, read_image
from app.imaging.read_options import DUPLICATE_SLICES, MISSING_SLICES, REPAIRS, ReadLimits, ReadOptions
from app.imaging.volume import CtVolume

__all__ = [
    "DUPLICATE_SLICES",
    "MISSING_SLICES",
    "REPAIRS",
    "InputFile",
    "ReadLimits",
    "ReadOptions",
    "read_ct",
]


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
    with tempfile.TemporaryDirectory(prefix="lungnodule-read-") as scratch:
        files, ignored = _received(listed_files(source), Path(scratch), options.limits)
        dicom = [file for file in files if is_dicom(file.head(132))]
        images = [file for file in files if image_format(file)]
        known = {file.index for file in (*dicom, *images)}
        ignored += [_ignored(file) for file in files if file.index not in known]
        count = len(files) + len(ignored)
        if dicom:
            return read_study(dicom, options, count, ignored)
        if not images:
            raise UnsupportedFormat(
                "None of the files is a DICOM image or a .mha, .mhd, .nii, .nii.gz or .nrrd volume.",
                code="not_dicom",
                values={"files": count},
            )
        if len(images) > 1:
            raise SeriesSelectionError(
                f"{len(images)} volumes were sent; send one.", code="ambiguous_series", values={"files": len(images)}
            )
        volume = read_image(images[0], Path(scratch))
        spacing = tuple(round(float(v), 6) for v in volume.grid.spacing_zyx_mm)
        chosen = SeriesSummary(None, None, volume.hu.shape[0], *volume.hu.shape[1:], spacing_zyx_mm=spacing)
        return volume, AcceptanceReport(image_format(images[0]) or "metaimage", count, tuple(ignored), chosen)


def _received(files: Sequence[InputFile], scratch: Path, limits: ReadLimits) -> tuple[list[ScanFile], list[Notice]]:
    """All files, archives unpacked, and notices about what was left out."""
    if len(files) > limits.max_files:
        raise UploadTooLarge(f"{len(files)} files; at most {limits.max_files} are read.", code="too_many_files")
    found: list[ScanFile] = []
    ignored: list[Notice] = []
    for file in files:
        size = file.path.stat().st_size
        scan_file = ScanFile(len(found) + len(ignored), file.plain_name, file.path, 0, size)
        if size and is_zip(scan_file.head(4)):
            unpacked = unpack(scan_file, scratch, limits, scan_file.index)
            found += unpacked.files
            ignored += unpacked.ignored
        elif size:
            found.append(scan_file)
        else:
            ignored.append(Notice("empty_file", "The file is empty.", {"file": scan_file.index}))
    if not found:
        raise UnreadableScan("Nothing was sent: the upload is empty.", code="empty_upload")
    return found, ignored


def _ignored(file: ScanFile) -> Notice:
    return Notice("not_dicom", "The file is neither DICOM nor a volume file.", {"file": file.index})
