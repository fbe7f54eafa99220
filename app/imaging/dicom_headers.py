"""The header gate: what the header of a DICOM file says, at a bounded cost, before any pixel is touched.

Pixel data is located here but never read. Only the attributes needed are taken, as encoded bytes.
"""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from app.imaging import dicom_values as values
from app.imaging.errors import UnreadableScan
from app.imaging.inputs import ByteRange, ScanFile
from app.imaging.read_options import ReadLimits

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
UNCOMPRESSED = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG})

PIXEL_DATA = 0x7FE00010
_ALL_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"})

SHARED_GROUPS, PER_FRAME_GROUPS = 0x52009229, 0x52009230
_TAGS = [
    0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00180010, 0x00180015, 0x00180050, 0x00180088, 0x00181120,
    0x00181210, 0x00189316, 0x0020000D, 0x0020000E, 0x00200011, 0x00200012, 0x00200013, 0x00200032, 0x00200037,
    0x00200052, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101,
    0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00281052, 0x00281053, 0x00281054, SHARED_GROUPS,
    PER_FRAME_GROUPS,
]  # fmt: skip

# What pydicom is known to raise on damaged headers; MemoryError and RecursionError included.
PARSE_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

_SILENCE = threading.RLock()


@dataclass(frozen=True)
class PixelFormat:
    """How stored values are laid out (PS3.3 C.7.6.3.1)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    little_endian: bool
    padding: tuple[int, int] | None = None
    """Inclusive range of stored values that are padding, not measured."""

    @property
    def frame_bytes(self) -> int:
        """Size of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class PixelLocation:
    """Where the pixel data element of a file lies."""

    offset: int
    """First byte of the value, counted from the start of the `ScanFile`."""
    length: int | None
    """Bytes of the value; None when encapsulated."""


@dataclass(frozen=True)
class SliceHeader:
    """One slice, classic image or frame of an Enhanced image, as its header describes it.

    A field is None where the attribute is absent or not valid; nothing is checked against anything here.
    """

    file: ScanFile
    transfer_syntax_uid: str
    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    frame_of_reference_uid: str | None
    modality: str | None
    image_type: tuple[str, ...]
    series_number: int | None
    acquisition_number: int | None
    instance_number: int | None
    body_part: str | None
    kernel: str | None
    has_contrast: bool
    slice_thickness_mm: float | None
    gantry_tilt_deg: float | None
    position_lps_mm: tuple[float, ...] | None
    orientation_lps: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str | None
    samples_per_pixel: int | None
    photometric: str | None
    frame_count: int
    pixel_format: PixelFormat | None
    pixels: PixelLocation | None
    frame_number: int | None = None
    """1-based frame of an Enhanced image."""

    @property
    def is_compressed(self) -> bool:
        """Whether pixels are encapsulated."""
        return self.transfer_syntax_uid not in UNCOMPRESSED


@contextmanager
def pydicom_silenced() -> Iterator[None]:
    """Keep what pydicom says out of logs and warnings: it quotes raw tag values.

    One thread at a time, because the filters of `warnings` belong to the whole process.
    """
    logger = logging.getLogger("pydicom")
    with _SILENCE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes are a DICOM preamble."""
    return head[128:132] == b"DICM"


def read_slice_headers(file: ScanFile, limits: ReadLimits) -> list[SliceHeader]:
    """Headers of the slices in one DICOM file: one, or one for each frame of an Enhanced image.

    Raises
    ------
    UnreadableScan
        ``truncated`` or ``damaged_header``; names the file by its index.
    UnsupportedFormat
        A transfer syntax that is not read.
    """
    with file.open() as stream, pydicom_silenced():
        try:
            return _parsed(file, stream)
        except PARSE_FAULTS as fault:
            raise damaged(file, "its header cannot be parsed") from fault


def damaged(file: ScanFile, why: str, code: str = "damaged_header") -> UnreadableScan:
    """Name a damaged file by its index; chained causes never reach the caller."""
    return UnreadableScan(
        f"File {file.index} is damaged: {why}. Send it again from its source.", code=code, values={"file": file.index}
    )


def _parsed(file: ScanFile, stream: ByteRange) -> list[SliceHeader]:
    stream.seek(132)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
    syntax = values.uid(meta, 0x00020010)
    if syntax is None:
        raise damaged(file, "TransferSyntaxUID (0002,0010) is absent or not a UID")
    implicit, little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    dataset = read_dataset(
        stream, is_implicit_VR=implicit, is_little_endian=little, stop_when=_at_pixels, specific_tags=list(_TAGS)
    )
    pixels = _locate_pixels(stream, implicit=implicit, little_endian=little)
    return [_slice_header(file, syntax, dataset, pixels)]


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) in _ALL_PIXEL_TAGS


def _locate_pixels(stream: ByteRange, *, implicit: bool, little_endian: bool) -> PixelLocation | None:
    """Where the value of the pixel data element at the current position lies; None at the end of the file."""
    order = "<" if little_endian else ">"
    start = stream.tell()
    head = stream.read(12)
    if len(head) < 8 or struct.unpack(order + "HH", head[:4]) != (PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF):
        return None
    if implicit or head[4:6] not in _LONG_VRS:
        offset, (length,) = start + 8, struct.unpack(order + "L", head[4:8])
    else:
        offset, (length,) = start + 12, struct.unpack(order + "L", head[8:12])
    return PixelLocation(offset, None if length == _UNDEFINED_LENGTH else length)


def _slice_header(file: ScanFile, syntax: str, dataset: Dataset, pixels: PixelLocation | None) -> SliceHeader:
    spacing = values.numbers(dataset, 0x00280030)
    return SliceHeader(
        file=file,
        transfer_syntax_uid=syntax,
        sop_class_uid=values.uid(dataset, 0x00080016),
        sop_instance_uid=values.uid(dataset, 0x00080018),
        study_instance_uid=values.uid(dataset, 0x0020000D),
        series_instance_uid=values.uid(dataset, 0x0020000E),
        frame_of_reference_uid=values.uid(dataset, 0x00200052),
        modality=values.code(dataset, 0x00080060),
        image_type=values.codes(dataset, 0x00080008),
        series_number=values.integer(dataset, 0x00200011),
        acquisition_number=values.integer(dataset, 0x00200012),
        instance_number=values.integer(dataset, 0x00200013),
        body_part=values.code(dataset, 0x00180015),
        kernel=values.short_text(dataset, 0x00181210),
        has_contrast=values.encoded(dataset, 0x00180010) is not None,
        slice_thickness_mm=values.number(dataset, 0x00180050),
        gantry_tilt_deg=values.number(dataset, 0x00181120),
        position_lps_mm=values.numbers(dataset, 0x00200032),
        orientation_lps=values.numbers(dataset, 0x00200037),
        pixel_spacing_mm=spacing,
        rescale_slope=values.number(dataset, 0x00281053),
        rescale_intercept=values.number(dataset, 0x00281052),
        rescale_type=values.code(dataset, 0x00281054),
        samples_per_pixel=values.unsigned_short(dataset, 0x00280002, little_endian=syntax != EXPLICIT_BIG),
        photometric=values.code(dataset, 0x00280004),
        frame_count=values.integer(dataset, 0x00280008) or 1,
        pixel_format=_pixel_format(dataset, little_endian=syntax != EXPLICIT_BIG),
        pixels=pixels,
    )


def _pixel_format(dataset: Dataset, *, little_endian: bool) -> PixelFormat | None:
    """None unless all five attributes are there; their values are judged when pixels are read."""
    layout = [
        values.unsigned_short(dataset, tag, little_endian=little_endian)
        for tag in (0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280103)
    ]
    if any(value is None for value in layout):
        return None
    rows, columns, allocated, stored, representation = (int(value or 0) for value in layout)
    pixel_format = PixelFormat(rows, columns, allocated, stored, representation == 1, little_endian)
    read_padding = values.signed_short if representation == 1 else values.unsigned_short
    padding = read_padding(dataset, 0x00280120, little_endian=little_endian)
    if padding is None:
        return pixel_format
    limit = read_padding(dataset, 0x00280121, little_endian=little_endian)
    other = padding if limit is None else limit
    return replace(pixel_format, padding=(min(padding, other), max(padding, other)))
