"""Headers of .mha, .mhd, .nii, .nii.gz and .nrrd files, read by ourselves before ITK may touch the file.

Only what protects is read here: dimensions, sample size, where the samples lie, whether there is an orientation.
Geometry itself is ITK's.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass, field

from app.imaging.errors import UnreadableScan, UnsupportedFormat
from app.imaging.inputs import ScanFile, plain_name

_MAX_TEXT_HEADER = 1 << 16
_METAIMAGE_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
_METAIMAGE_KEPT = (
    "NDims", "DimSize", "ElementType", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin",
    "TransformMatrix", "Rotation", "Orientation", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData",
    "CompressedDataSize",
)  # fmt: skip
_NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4}
_NIFTI_SIZE = 348
_NRRD_BYTES = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1,
    "short": 2, "short int": 2, "signed short": 2, "int16": 2, "int16_t": 2, "ushort": 2, "unsigned short": 2,
    "uint16": 2, "uint16_t": 2, "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4, "unsigned int": 4,
    "uint32": 4, "uint32_t": 4, "float": 4, "double": 8,
}  # fmt: skip
_NRRD_SPACES = frozenset(
    {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
)
_ORTHOGONAL = 1e-3
_SPACING_AGREES = 0.01


@dataclass(frozen=True)
class VolumeHeader:
    """What the gate needs to know of one volume file."""

    source_format: str
    """`metaimage`, `nifti` or `nrrd`."""
    size_xyz: tuple[int, int, int]
    bytes_per_voxel: int
    compressed: bool
    data_offset: int
    """Where the samples begin, counted from the start of the file that holds them."""
    data_name: str | None = None
    """Plain name of the file that holds the samples of an `.mhd`; None: the same file."""
    kept: dict[str, str] = field(default_factory=dict)
    """MetaImage header fields that ITK may see."""

    @property
    def data_bytes(self) -> int:
        """Uncompressed samples."""
        return math.prod(self.size_xyz) * self.bytes_per_voxel


def volume_format(head: bytes, name: str) -> str | None:
    """`metaimage`, `nifti`, `nrrd` or None, from the first 352 bytes; the name decides only what gzip holds."""
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if re.match(rb"\s*(ObjectType|NDims|Comment|ObjectSubType)\s*=", head):
        return "metaimage"
    if head[344:348] in (b"n+1\0", b"ni1\0") or (head[:2] == b"\x1f\x8b" and plain_name(name).lower().endswith("gz")):
        return "nifti"
    return None


def read_volume_header(file: ScanFile, source_format: str) -> VolumeHeader:
    """Parse the header of a file whose format `volume_format` told.

    Raises
    ------
    UnreadableScan
        ``damaged_header`` or ``invalid_geometry``.
    UnsupportedFormat
        A variant that is not read: not three-dimensional, several channels, external or ASCII data.
    """
    parse = {"metaimage": _metaimage, "nifti": _nifti, "nrrd": _nrrd}[source_format]
    try:
        return parse(file)
    except (ValueError, KeyError, IndexError, OverflowError, struct.error, zlib.error):
        fault = refused(file, "its header is damaged", "damaged_header")
    raise fault


def refused(file: ScanFile, why: str, code: str) -> UnreadableScan:
    """The error for one volume file, named by its index."""
    return UnreadableScan(f"File {file.index} cannot be read: {why}.", code=code, values={"file": file.index})


def _unsupported(file: ScanFile, why: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"File {file.index} is of a kind that is not read: {why}. Send one grey-scale volume in one file.",
        values={"file": file.index},
    )


def _metaimage(file: ScanFile) -> VolumeHeader:
    """MetaImage: `key = value` lines up to ElementDataFile, which is the last."""
    text = file.read(0, _MAX_TEXT_HEADER)
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = text.index(b"\n", position) if b"\n" in text[position:] else len(text)
        key, _, value = text[position:end].decode("ascii", "replace").partition("=")
        if not key.strip() and end == len(text):
            raise refused(file, "ElementDataFile is absent", "damaged_header")
        fields[key.strip()] = value.strip()
        position = end + 1
    size = _size(file, fields["DimSize"].split(), int(fields["NDims"]))
    if int(fields.get("ElementNumberOfChannels", "1")) != 1 or fields.get("BinaryData", "True").lower() == "false":
        raise _unsupported(file, "several channels or ASCII samples")
    name = fields["ElementDataFile"]
    if name != "LOCAL" and (plain_name(name) != name or name in ("", "LIST", ".", "..") or "%" in name):
        raise _unsupported(file, "ElementDataFile is not the plain name of one file beside it")
    return VolumeHeader(
        "metaimage",
        size,
        _METAIMAGE_BYTES[fields["ElementType"]],
        compressed=fields.get("CompressedData", "False").lower() == "true",
        data_offset=position if name == "LOCAL" else max(0, int(fields.get("HeaderSize", "0"))),
        data_name=None if name == "LOCAL" else name,
        kept={key: fields[key] for key in _METAIMAGE_KEPT if key in fields},
    )


def _nifti(file: ScanFile) -> VolumeHeader:
    """NIfTI-1 in one file, plain or gzip."""
    head = file.read(0, 1 << 16)
    compressed = head[:2] == b"\x1f\x8b"
    if compressed:
        head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, _NIFTI_SIZE)
    if len(head) < _NIFTI_SIZE:
        raise refused(file, "it ends within its header", "truncated")
    order = "<" if struct.unpack("<i", head[:4])[0] == _NIFTI_SIZE else ">"
    if struct.unpack(order + "i", head[:4])[0] != _NIFTI_SIZE or head[344:348] != b"n+1\0":
        raise _unsupported(file, "neither NIfTI-1 in one file nor another format that is read")
    dims = struct.unpack(order + "8h", head[40:56])
    extra = [n for n in dims[4 : dims[0] + 1] if n != 1]
    if extra or dims[0] > 7:
        raise _unsupported(file, "more than three dimensions")
    size = _size(file, dims[1:4], min(dims[0], 3))
    _check_nifti_orientation(file, head, order)
    (offset,) = struct.unpack(order + "f", head[108:112])
    (datatype,) = struct.unpack(order + "h", head[70:72])
    return VolumeHeader("nifti", size, _NIFTI_BYTES[datatype], compressed, int(offset))


def _check_nifti_orientation(file: ScanFile, head: bytes, order: str) -> None:
    """Refuse what ITK would guess about: no orientation, or an sform that is sheared or at odds with pixdim."""
    qform_code, sform_code = struct.unpack(order + "2h", head[252:256])
    if qform_code <= 0 and sform_code <= 0:
        raise refused(file, "it has neither qform nor sform, so left and right are not known", "invalid_geometry")
    if sform_code <= 0:
        return
    pixdim = struct.unpack(order + "4f", head[76:92])[1:]
    rows = [struct.unpack(order + "4f", head[start : start + 16])[:3] for start in (280, 296, 312)]
    columns = list(zip(*rows, strict=True))
    lengths = [math.hypot(*column) for column in columns]
    if not all(
        math.isfinite(length) and length > 0 and abs(length - abs(step)) <= _SPACING_AGREES * length
        for length, step in zip(lengths, pixdim, strict=True)
    ):
        raise refused(file, "sform and pixdim give different voxel sizes", "invalid_geometry")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        cosine = sum(a * b for a, b in zip(columns[one], columns[other], strict=True)) / lengths[one] / lengths[other]
        if abs(cosine) > _ORTHOGONAL:
            raise refused(file, "the axes of its sform are not perpendicular", "invalid_geometry")


def _nrrd(file: ScanFile) -> VolumeHeader:
    """NRRD with its data attached: `field: value` lines up to an empty one."""
    text = file.read(0, _MAX_TEXT_HEADER)
    ends = [(text.index(mark) + len(mark)) for mark in (b"\n\n", b"\r\n\r\n") if mark in text]
    if not ends:
        raise refused(file, "its header does not end", "damaged_header")
    fields = {}
    for line in text[: min(ends)].decode("ascii", "replace").splitlines()[1:]:
        key, mark, value = line.partition(": ")
        if mark and not line.startswith("#"):
            fields[key.strip().lower()] = value.strip()
    if {"data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip"} & fields.keys():
        raise _unsupported(file, "its samples lie in another file")
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise _unsupported(file, "encoding is neither raw nor gzip")
    if fields.get("space", "").lower() not in _NRRD_SPACES or "space directions" not in fields:
        raise refused(file, "it has no patient space, so left and right are not known", "invalid_geometry")
    size = _size(file, fields["sizes"].split(), int(fields["dimension"]))
    return VolumeHeader("nrrd", size, _NRRD_BYTES[fields["type"].lower()], encoding != "raw", min(ends))


def _size(file: ScanFile, values: list[str] | tuple[int, ...], dimensions: int) -> tuple[int, int, int]:
    if dimensions != 3 or len(values) != 3:
        raise _unsupported(file, "not three-dimensional")
    x, y, z = (int(value) for value in values)
    if min(x, y, z) < 1:
        raise refused(file, "a dimension is not positive", "damaged_header")
    return x, y, z
