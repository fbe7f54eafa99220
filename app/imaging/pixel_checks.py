"""What is known about the pixels before one of them is decoded or a byte allocated for them."""

from __future__ import annotations

from collections.abc import Sequence

from app.imaging.errors import UnreadableScan, UnsupportedFormat, UploadTooLarge
from app.imaging.read_options import ReadLimits
from app.imaging.slice_header import PixelFormat, SliceHeader, damaged
from app.imaging.transfer_syntax import TRANSFER_SYNTAXES

_MAX_SLOPE, _MAX_INTERCEPT = 1e3, 1e5
_GREY_SCALE = ("MONOCHROME1", "MONOCHROME2")


def check_pixels(headers: Sequence[SliceHeader], limits: ReadLimits) -> None:
    """Refuse slices that cannot be decoded into HU.

    Raises
    ------
    UnsupportedFormat
        ``transfer_syntax``.
    UnreadableScan
        ``invalid_uid``, ``invalid_pixel_format``, ``missing_rescale``, ``invalid_rescale``, ``truncated`` or
        ``length_mismatch``; names the file by its index.
    UploadTooLarge
        ``too_many_voxels``.
    """
    for header in headers:
        _check_syntax(header)
        _check_uids(header)
        _check_format(header, limits)
        _check_rescale(header)
        _check_length(header)
    voxels = sum(layout.rows * layout.columns for layout in map(format_of, headers))
    if voxels > limits.max_voxels or len(headers) > limits.max_slices:
        raise UploadTooLarge(
            f"The series has {len(headers)} slices and {voxels} voxels; at most {limits.max_slices} and "
            f"{limits.max_voxels} are read. Send a smaller reconstruction.",
            code="too_many_voxels",
            values={"slices": len(headers), "voxels": voxels, "max_voxels": limits.max_voxels},
        )


def format_of(header: SliceHeader) -> PixelFormat:
    """Pixel format of a slice; UnreadableScan when the header lacks it."""
    if header.pixel_format is None:
        attributes = "Rows, Columns, BitsAllocated, BitsStored, HighBit or PixelRepresentation"
        raise damaged(header.file, f"{attributes} is absent", code="invalid_pixel_format")
    return header.pixel_format


def _check_syntax(header: SliceHeader) -> None:
    if header.transfer_syntax is None:
        raise UnsupportedFormat(
            f"File {header.file.index} has a transfer syntax that is not read. Convert it to one of those listed.",
            code="transfer_syntax",
            values={"file": header.file.index, "supported": {uid: ts.name for uid, ts in TRANSFER_SYNTAXES.items()}},
        )


def _check_uids(header: SliceHeader) -> None:
    uids = {
        "SOPInstanceUID": header.sop_instance_uid,
        "SeriesInstanceUID": header.series_instance_uid,
        "StudyInstanceUID": header.study_instance_uid,
    }
    if absent := [attribute for attribute, uid in uids.items() if uid is None]:
        raise damaged(header.file, f"{', '.join(absent)} is absent or not a UID", code="invalid_uid")


def _check_format(header: SliceHeader, limits: ReadLimits) -> None:
    layout = format_of(header)
    found = {
        "Rows": (layout.rows, 2 <= layout.rows <= limits.max_matrix),
        "Columns": (layout.columns, 2 <= layout.columns <= limits.max_matrix),
        "BitsAllocated": (layout.bits_allocated, layout.bits_allocated == 16),
        "BitsStored": (layout.bits_stored, 1 <= layout.bits_stored <= 16),
        "HighBit": (layout.high_bit, layout.high_bit == layout.bits_stored - 1),
        "SamplesPerPixel": (header.samples_per_pixel, header.samples_per_pixel == 1),
        "PhotometricInterpretation": (header.photometric, header.photometric in _GREY_SCALE),
        "NumberOfFrames": (header.frame_count, 1 <= header.frame_count <= limits.max_slices),
    }
    wrong = {attribute: value for attribute, (value, good) in found.items() if not good}
    if header.frame_number is None and header.frame_count != 1:
        wrong["NumberOfFrames"] = header.frame_count
    if wrong:
        said = ", ".join(f"{attribute} {value}" for attribute, value in wrong.items())
        raise UnreadableScan(
            f"File {header.file.index} is not a CT image that can be read: {said}.",
            code="invalid_pixel_format",
            values={"file": header.file.index, **wrong},
        )


def _check_rescale(header: SliceHeader) -> None:
    slope, intercept = header.rescale_slope, header.rescale_intercept
    if slope is None or intercept is None:
        raise UnreadableScan(
            f"File {header.file.index} has no valid RescaleSlope and RescaleIntercept: its values are not HU.",
            code="missing_rescale",
            values={"file": header.file.index},
        )
    if not 0.0 < slope <= _MAX_SLOPE or abs(intercept) > _MAX_INTERCEPT:
        raise UnreadableScan(
            f"File {header.file.index} has RescaleSlope {slope:g} and RescaleIntercept {intercept:g}: "
            "these do not give HU.",
            code="invalid_rescale",
            values={"file": header.file.index, "slope": slope, "intercept": intercept},
        )


def _check_length(header: SliceHeader) -> None:
    """The declared, the needed and the present bytes of pixel data must agree; nothing is ever padded."""
    if header.pixels is None:
        raise damaged(header.file, "it ends before its pixel data", code="truncated")
    compressed = header.transfer_syntax is not None and header.transfer_syntax.compressed
    if compressed != (header.pixels.length is None):
        raise damaged(header.file, "its pixel data is not encoded as its transfer syntax says", code="damaged_pixels")
    if header.pixels.length is None:
        return
    needed = format_of(header).frame_bytes * header.frame_count
    present = header.file.size - header.pixels.offset
    if present < min(needed, header.pixels.length):
        raise damaged(header.file, f"{needed} bytes of pixel data are needed, {present} are there", code="truncated")
    if header.pixels.length != needed:
        raise damaged(
            header.file,
            f"PixelData says {header.pixels.length} bytes; Rows, Columns and NumberOfFrames say {needed}",
            code="length_mismatch",
        )
