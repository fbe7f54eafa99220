"""NRRD headers with their data attached (.nrrd): `field: value` lines up to an empty one."""

from __future__ import annotations

import re

import numpy as np

from app.imaging.inputs import ScanFile
from app.imaging.volume_header import VolumeHeader, checked_affine, checked_size, refused, unsupported

_MAX_HEADER_BYTES = 1 << 16
_SAMPLE_TYPES = {
    "signed char": "i1", "int8": "i1", "int8_t": "i1",
    "uchar": "u1", "unsigned char": "u1", "uint8": "u1", "uint8_t": "u1",
    "short": "i2", "short int": "i2", "signed short": "i2", "signed short int": "i2", "int16": "i2", "int16_t": "i2",
    "ushort": "u2", "unsigned short": "u2", "unsigned short int": "u2", "uint16": "u2", "uint16_t": "u2",
    "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4",
    "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4",
    "float": "f4", "double": "f8",
}  # fmt: skip
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
_ELSEWHERE = frozenset({"data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip"})
_VECTOR = re.compile(r"\(([^()]*)\)")


def is_nrrd(head: bytes) -> bool:
    """Whether a file begins like NRRD."""
    return head.startswith(b"NRRD000")


def nrrd_header(file: ScanFile) -> VolumeHeader:
    """Parse the header of an NRRD file.

    Raises
    ------
    UnreadableScan, UnsupportedFormat
    KeyError, ValueError
        Damage that has no name of its own.
    """
    fields, header_bytes = _fields(file)
    if fields.keys() & _ELSEWHERE:
        raise unsupported(file, "its samples lie in another file")
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise unsupported(file, "encoding is neither raw nor gzip")
    size = checked_size(file, fields["sizes"].split(), int(fields["dimension"]))
    signs = _TO_LPS.get(fields.get("space", "").lower())
    if signs is None or not {"space directions", "space origin"} <= fields.keys():
        raise refused(file, "it has no patient space, so left and right are not known", "invalid_geometry")
    if any(unit != "mm" for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))):
        raise refused(file, "space units is not mm", "invalid_geometry")
    axes = np.array(_vectors(fields["space directions"]))
    (origin,) = _vectors(fields["space origin"])
    sign = np.asarray(signs, dtype=np.float64)
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    return VolumeHeader(
        "nrrd",
        size,
        order + _SAMPLE_TYPES[fields["type"].lower()],
        checked_affine(file, axes.reshape(3, 3).T * sign[:, None], np.asarray(origin) * sign),
        compressed=encoding != "raw",
        data_offset=header_bytes,
    )


def _fields(file: ScanFile) -> tuple[dict[str, str], int]:
    """Fields in lower case, and the length of the header."""
    text = file.read(0, _MAX_HEADER_BYTES)
    end = re.search(rb"\r?\n\r?\n", text)
    if end is None:
        raise refused(file, "its header does not end")
    fields = {}
    for line in text[: end.start()].decode("ascii", "replace").splitlines()[1:]:
        key, colon, value = line.partition(": ")
        if colon and not line.startswith("#"):
            fields[key.strip().lower()] = value.strip()
    return fields, end.end()


def _vectors(text: str) -> list[list[float]]:
    return [[float(value) for value in found.split(",")] for found in _VECTOR.findall(text)]
