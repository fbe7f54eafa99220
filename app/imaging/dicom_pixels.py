"""Pixels of a stack of slices, as HU in one preallocated array."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.imaging.dicom_headers import EXPLICIT_BIG, PixelFormat, SliceHeader, damaged
from app.imaging.errors import UnreadableScan, UploadTooLarge
from app.imaging.hounsfield import write_hu
from app.imaging.read_options import ReadLimits

_MAX_SLOPE, _MAX_INTERCEPT = 1e3, 1e5


def check_pixels(headers: Sequence[SliceHeader], limits: ReadLimits) -> None:
    """Refuse what cannot be decoded, before anything is allocated.

    Raises
    ------
    UnreadableScan
        ``invalid_pixel_format``, ``missing_rescale``, ``invalid_rescale``, ``truncated``.
    UploadTooLarge
        ``too_many_voxels``.
    """
    for header in headers:
        _check_format(header, limits)
        _check_rescale(header)
        _check_length(header)
    first = headers[0].pixel_format
    voxels = len(headers) * (first.rows * first.columns if first else 0)
    if voxels > limits.max_voxels:
        raise UploadTooLarge(
            f"The volume has {voxels} voxels; at most {limits.max_voxels} are read. Send a smaller reconstruction.",
            code="too_many_voxels",
            values={"voxels": voxels, "max_voxels": limits.max_voxels},
        )


def read_hu(
    headers: Sequence[SliceHeader], limits: ReadLimits, on_progress: Callable[[float], None]
) -> NDArray[np.int16]:
    """HU of slices that passed `check_pixels`, int16 (z, y, x) in the order of ``headers``."""
    first = _format_of(headers[0])
    hu = np.empty((len(headers), first.rows, first.columns), np.int16)
    for z, header in enumerate(headers):
        _read_uncompressed(header, hu[z])
        on_progress((z + 1) / len(headers))
    return hu


def same_pixels(one: SliceHeader, other: SliceHeader) -> bool:
    """Whether two slices hold the same stored bytes with the same meaning."""
    return _meaning(one) == _meaning(other) and _digest(one) == _digest(other)


def _meaning(header: SliceHeader) -> tuple[object, ...]:
    return header.pixel_format, header.rescale_slope, header.rescale_intercept, header.transfer_syntax_uid


def _digest(header: SliceHeader) -> bytes:
    if header.pixels is None:
        return b""
    with header.file.open() as stream:
        stream.seek(header.pixels.offset)
        return hashlib.sha256(stream.read(-1 if header.pixels.length is None else header.pixels.length)).digest()


def _format_of(header: SliceHeader) -> PixelFormat:
    if header.pixel_format is None:
        raise damaged(header.file, "Rows, Columns, BitsAllocated, BitsStored or PixelRepresentation is absent")
    return header.pixel_format


def _check_format(header: SliceHeader, limits: ReadLimits) -> None:
    layout = _format_of(header)
    reasons = {
        "Rows": 2 <= layout.rows <= limits.max_matrix,
        "Columns": 2 <= layout.columns <= limits.max_matrix,
        "BitsAllocated": layout.bits_allocated in (8, 16, 32),
        "BitsStored": 1 <= layout.bits_stored <= layout.bits_allocated,
        "SamplesPerPixel": header.samples_per_pixel == 1,
        "PhotometricInterpretation": header.photometric == "MONOCHROME2",
        "NumberOfFrames": 1 <= header.frame_count <= limits.max_slices,
    }
    if wrong := [attribute for attribute, good in reasons.items() if not good]:
        raise UnreadableScan(
            f"File {header.file.index} is not a grey-scale CT image that can be read: {', '.join(wrong)} out of range "
            f"(Rows {layout.rows}, Columns {layout.columns}, BitsAllocated {layout.bits_allocated}, "
            f"BitsStored {layout.bits_stored}, SamplesPerPixel {header.samples_per_pixel}).",
            code="invalid_pixel_format",
            values={"file": header.file.index, "attributes": wrong, "max_matrix": limits.max_matrix},
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
            f"File {header.file.index} has RescaleSlope {slope:g} and RescaleIntercept {intercept:g}, "
            "which cannot give HU.",
            code="invalid_rescale",
            values={"file": header.file.index, "slope": slope, "intercept": intercept},
        )


def _check_length(header: SliceHeader) -> None:
    """The declared, the needed and the present bytes of pixel data must agree; nothing is ever padded."""
    if header.pixels is None:
        raise damaged(header.file, "it ends before its pixel data", code="truncated")
    if header.is_compressed:
        return
    needed = _format_of(header).frame_bytes * header.frame_count
    present = header.file.size - header.pixels.offset
    declared = header.pixels.length
    if present < needed:
        raise damaged(header.file, f"{needed} bytes of pixel data are needed, {present} are there", code="truncated")
    if declared not in (needed, needed + needed % 2):
        raise damaged(header.file, f"PixelData says {declared} bytes, Rows and Columns say {needed}", "length_mismatch")


def _read_uncompressed(header: SliceHeader, out: NDArray[np.int16]) -> None:
    layout = _format_of(header)
    kind = f"{'<' if layout.little_endian else '>'}{'i' if layout.is_signed else 'u'}{layout.bits_allocated // 8}"
    offset = header.file.offset + (header.pixels.offset if header.pixels else 0)
    offset += layout.frame_bytes * ((header.frame_number or 1) - 1)
    stored = np.fromfile(header.file.path, dtype=kind, count=out.size, offset=offset)
    if stored.size != out.size:
        raise damaged(header.file, "its pixel data ends early", code="truncated")
    native = stored.reshape(out.shape)
    if header.transfer_syntax_uid == EXPLICIT_BIG:
        native = native.astype(native.dtype.newbyteorder("="))
    write_hu(native, layout, header.rescale_slope or 1.0, header.rescale_intercept or 0.0, out)
