"""MetaImage headers (.mha, .mhd): `key = value` lines, of which ElementDataFile is the last."""

from __future__ import annotations

import re

import numpy as np

from app.imaging.inputs import ScanFile, plain_name
from app.imaging.volume_header import PERPENDICULAR, VolumeHeader, checked_affine, checked_size, refused, unsupported

_MAX_HEADER_BYTES = 1 << 16
_SAMPLE_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def is_metaimage(head: bytes) -> bool:
    """Whether a file begins like a MetaImage header."""
    return re.match(rb"\s*(ObjectType|NDims|Comment|ObjectSubType)\s*=", head) is not None


def metaimage_header(file: ScanFile) -> VolumeHeader:
    """Parse the header of a MetaImage.

    Raises
    ------
    UnreadableScan, UnsupportedFormat
    ValueError, KeyError
        Damage that has no name of its own.
    """
    fields, header_bytes = _fields(file)
    size = checked_size(file, fields["DimSize"].split(), int(fields["NDims"]))
    if int(fields.get("ElementNumberOfChannels", "1")) != 1 or not _flag(fields, "BinaryData", default=True):
        raise unsupported(file, "several channels or ASCII samples")
    if float(fields.get("ElementToIntensityFunctionSlope", "1")) != 1.0:
        raise unsupported(file, "samples with a slope of their own")
    name = fields["ElementDataFile"]
    if name != "LOCAL" and (plain_name(name) != name or name in ("", "LIST", ".", "..") or "%" in name):
        raise unsupported(file, "ElementDataFile is not the plain name of one file beside it")
    big = _flag(fields, "BinaryDataByteOrderMSB") or _flag(fields, "ElementByteOrderMSB")
    spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), None)
    # One row for each axis: its direction in LPS.
    axes = np.reshape(_numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), "1 0 0 0 1 0 0 0 1"), (3, 3))
    if np.abs(np.linalg.norm(axes, axis=1) - 1.0).max() > PERPENDICULAR:
        raise refused(file, "the rows of TransformMatrix are not unit vectors", "invalid_geometry")
    origin = _numbers(fields, ("Offset", "Position", "Origin"), "0 0 0")
    return VolumeHeader(
        "metaimage",
        size,
        (">" if big else "<") + _SAMPLE_TYPES[fields["ElementType"]],
        checked_affine(file, axes.T * spacing, origin),
        compressed=_flag(fields, "CompressedData"),
        data_offset=header_bytes if name == "LOCAL" else max(0, int(fields.get("HeaderSize", "0"))),
        data_name=None if name == "LOCAL" else name,
    )


def _fields(file: ScanFile) -> tuple[dict[str, str], int]:
    """Keys and values up to ElementDataFile, and the length of the header."""
    text = file.read(0, _MAX_HEADER_BYTES)
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        if position >= len(text):
            raise refused(file, "ElementDataFile is absent")
        end = text.find(b"\n", position)
        end = len(text) if end < 0 else end
        key, _, value = text[position:end].decode("ascii", "replace").partition("=")
        fields[key.strip()] = value.strip()
        position = end + 1
    return fields, position


def _flag(fields: dict[str, str], key: str, *, default: bool = False) -> bool:
    return fields.get(key, str(default)).lower() in ("true", "1", "t", "yes")


def _numbers(fields: dict[str, str], keys: tuple[str, ...], default: str | None) -> list[float]:
    """Numbers under the first of several names of one thing; KeyError without a default."""
    found = next((fields[key] for key in keys if key in fields), default)
    if found is None:
        raise KeyError(keys[0])
    return [float(value) for value in found.split()]
