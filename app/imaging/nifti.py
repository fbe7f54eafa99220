"""NIfTI-1 headers (.nii, .nii.gz): fixed offsets, and coordinates in RAS that are turned to LPS here."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

from app.imaging.inputs import ScanFile
from app.imaging.volume import FloatArray
from app.imaging.volume_header import VolumeHeader, checked_affine, checked_size, refused, unsupported

_HEADER_BYTES = 348
_SAMPLES_FROM = 352
_GZIP = b"\x1f\x8b"
_SAMPLE_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SCANNER = 1
"""qform_code and sform_code of scanner coordinates."""
_SPACING_AGREES = 0.01
_PLACES_AGREE_MM = 1.0
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def is_nifti(head: bytes, name: str) -> bool:
    """Whether a file is NIfTI by its magic, or is gzip and named so."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or (head[:2] == _GZIP and name.lower().endswith((".nii.gz", ".nii")))


def nifti_header(file: ScanFile) -> VolumeHeader:
    """Parse the header of a NIfTI-1 file, plain or gzip.

    Raises
    ------
    UnreadableScan, UnsupportedFormat
    KeyError, ValueError, struct.error, zlib.error
        Damage that has no name of its own.
    """
    head = file.read(0, 1 << 16)
    compressed = head[:2] == _GZIP
    if compressed:
        head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _HEADER_BYTES)
    if len(head) < _HEADER_BYTES:
        raise refused(file, "it ends within its header", "truncated")
    order = "<" if struct.unpack_from("<i", head)[0] == _HEADER_BYTES else ">"
    if struct.unpack_from(order + "i", head)[0] != _HEADER_BYTES or head[344:348] != b"n+1\0":
        raise unsupported(file, "neither NIfTI-1 in one file nor another format that is read")
    dims = struct.unpack_from(order + "8h", head, 40)
    if not 0 <= dims[0] <= 7 or any(count != 1 for count in dims[4 : dims[0] + 1]):
        raise unsupported(file, "more than three dimensions")
    size = checked_size(file, dims[1:4], min(dims[0], 3))
    offset, slope, intercept = struct.unpack_from(order + "3f", head, 108)
    if not offset.is_integer() or offset < _SAMPLES_FROM:
        raise refused(file, "vox_offset points into its header")
    no_slope = not math.isfinite(slope) or slope == 0.0
    return VolumeHeader(
        "nifti",
        size,
        order + _SAMPLE_TYPES[struct.unpack_from(order + "h", head, 70)[0]],
        _affine(file, head, order, size),
        compressed,
        int(offset),
        offset_inside=compressed,
        slope=1.0 if no_slope else slope,
        intercept=0.0 if no_slope else intercept,
    )


def _affine(file: ScanFile, head: bytes, order: str, size: tuple[int, int, int]) -> FloatArray:
    """The form that is in scanner coordinates; both are checked against each other when both say that they are."""
    unit_mm = _UNIT_MM[head[123] & 7]
    codes = struct.unpack_from(order + "2h", head, 252)
    forms = [form for form, code in zip((_qform, _sform), codes, strict=True) if code > 0]
    if not forms:
        raise refused(file, "it has neither qform nor sform, so left and right are not known", "invalid_geometry")
    affines = [form(file, head, order, unit_mm) for form in forms]
    if len(affines) == 1:
        return affines[0]
    if codes[0] == codes[1]:
        corners = np.array([(*np.multiply(size, corner), 1) for corner in np.ndindex(2, 2, 2)], dtype=np.float64)
        apart_mm = float(np.abs(corners @ (affines[0] - affines[1]).T).max())
        if apart_mm > _PLACES_AGREE_MM:
            raise refused(file, f"qform and sform place it {apart_mm:.1f} mm apart", "invalid_geometry")
    return affines[0] if codes[0] == _SCANNER != codes[1] else affines[1]


def _sform(file: ScanFile, head: bytes, order: str, unit_mm: float) -> FloatArray:
    rows = np.array([struct.unpack_from(order + "4f", head, start) for start in (280, 296, 312)])
    columns = rows[:, :3] * unit_mm * _RAS_TO_LPS[:, None]
    steps = np.abs(struct.unpack_from(order + "3f", head, 80)) * unit_mm
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.abs(lengths - steps) <= _SPACING_AGREES * lengths).all():
        raise refused(file, "sform and pixdim give different voxel sizes", "invalid_geometry")
    return checked_affine(file, columns, rows[:, 3] * unit_mm * _RAS_TO_LPS)


def _qform(file: ScanFile, head: bytes, order: str, unit_mm: float) -> FloatArray:
    """Rotation from the unit quaternion (a, b, c, d) of which a is not stored."""
    b, c, d, *origin = struct.unpack_from(order + "6f", head, 256)
    handedness, *steps = struct.unpack_from(order + "4f", head, 76)
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.abs(steps) * unit_mm * (1.0, 1.0, -1.0 if handedness < 0 else 1.0)
    return checked_affine(file, rotation * scale * _RAS_TO_LPS[:, None], np.array(origin) * unit_mm * _RAS_TO_LPS)
