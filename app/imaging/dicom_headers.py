"""The header gate: what a DICOM file says of itself, at a bounded cost, before any pixel is touched.

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
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from app.imaging import dicom_values as values
from app.imaging.dicom_deflate import inflated
from app.imaging.dicom_values import BudgetSpentError, HeaderBytes, ReadBudget
from app.imaging.enhanced import FUNCTIONAL_GROUPS, frames_of
from app.imaging.inputs import ScanFile
from app.imaging.read_options import ReadLimits
from app.imaging.slice_header import PixelFormat, PixelLocation, SliceHeader, damaged
from app.imaging.transfer_syntax import DEFLATED_LITTLE, TRANSFER_SYNTAXES, TransferSyntax

_PREAMBLE_BYTES = 132
_FIRST_WINDOW_BYTES = 1 << 15
_WINDOW_GROWTH = 16
_PIXEL_DATA = 0x7FE00010
_ALL_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, _PIXEL_DATA})
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"})
_TAGS = [
    0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00180010, 0x00180012, 0x00180015, 0x00180050, 0x00181120,
    0x00181210, 0x0020000D, 0x0020000E, 0x00200013, 0x00200032, 0x00200037, 0x00200052, 0x00280002, 0x00280004,
    0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101, 0x00280102, 0x00280103, 0x00280120,
    0x00280121, 0x00281052, 0x00281053, 0x00281054, 0x00282110, *FUNCTIONAL_GROUPS,
]  # fmt: skip

# What pydicom is known to raise on damaged headers.
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

_ONE_THREAD = threading.RLock()


@contextmanager
def pydicom_silenced() -> Iterator[None]:
    """Keep what pydicom says out of logs and warnings: it quotes raw tag values.

    One thread at a time, because the filters of `warnings` belong to the whole process.
    """
    logger = logging.getLogger("pydicom")
    with _ONE_THREAD, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = was_disabled


def is_dicom(head: bytes) -> bool:
    """Whether a file begins with a DICOM preamble."""
    return head[128:132] == b"DICM"


def lacks_preamble(head: bytes) -> bool:
    """Whether a file begins like a DICOM dataset or file meta group without the 132 bytes before it."""
    return head[:2] in (b"\x02\x00", b"\x08\x00") and head[2:4] in (b"\x00\x00", b"\x05\x00", b"\x08\x00", b"\x16\x00")


def read_slice_headers(file: ScanFile, scratch: Path, limits: ReadLimits, budget: ReadBudget) -> list[SliceHeader]:
    """Headers of the slices in one DICOM file: one, or one for each frame of an Enhanced image.

    Parameters
    ----------
    file
        A file that `is_dicom`.
    scratch
        Folder where a deflated dataset is inflated.
    limits
        Bytes of a header, and of an inflated dataset.
    budget
        Reads left for all files of the upload; spent here.

    Raises
    ------
    UnreadableScan
        ``truncated``, ``damaged_header`` or ``header_too_large``; names the file by its index.
    UploadTooLarge
        ``compression_ratio``, for a deflated dataset.
    """
    with pydicom_silenced():
        try:
            return _parsed(file, scratch, limits, budget)
        except BudgetSpentError:
            code, why = "header_too_large", "the headers have more elements than are read"
        except PARSE_FAULTS as caught:
            if isinstance(caught, OSError) and caught.errno is not None:
                # The disk's fault; pydicom's own have no number.
                raise
            code, why = "damaged_header", f"its header cannot be parsed ({type(caught).__name__})"
    # Raised here, so that the cause, whose text may quote a tag value, is not chained to it.
    raise damaged(file, why, code)


def _parsed(file: ScanFile, scratch: Path, limits: ReadLimits, budget: ReadBudget) -> list[SliceHeader]:
    """Parse a growing part of the file until it holds the whole header."""
    most = min(file.size, limits.max_header_bytes)
    window = min(most, _FIRST_WINDOW_BYTES)
    while window < most:
        try:
            part = _parsed_part(file, window, scratch, limits, budget)
        except PARSE_FAULTS:
            # Perhaps only because it is cut off; the whole of it decides.
            part = None
        if part is not None and part.complete:
            return part.headers
        window = min(most, window * _WINDOW_GROWTH)
    part = _parsed_part(file, most, scratch, limits, budget)
    if part.complete or part.headers[0].modality not in (None, "CT"):
        # Of what is no CT no more is needed than to say so.
        return part.headers
    if most < file.size:
        raise damaged(file, f"its header is over {most} bytes", code="header_too_large")
    raise damaged(file, "it ends within its header", code="truncated")


@dataclass(frozen=True)
class _Part:
    """What the first bytes of a file say, and whether they hold its whole header."""

    headers: list[SliceHeader]
    complete: bool


def _parsed_part(file: ScanFile, size: int, scratch: Path, limits: ReadLimits, budget: ReadBudget) -> _Part:
    stream = HeaderBytes(file.read(0, size), budget)
    stream.seek(_PREAMBLE_BYTES)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
    uid = values.uid(meta, 0x00020010)
    if uid == DEFLATED_LITTLE:
        return _Part(_parsed(inflated(file, stream.tell(), scratch, limits), scratch, limits, budget), complete=True)
    syntax = TRANSFER_SYNTAXES.get(uid or "")
    dataset, pixels = _read_to_pixels(stream, syntax)
    header = _slice_header(file, syntax, dataset, pixels)
    if stream.overran or (pixels is None and size < file.size):
        return _Part([header], complete=False)
    return _Part(frames_of(header, dataset, budget), complete=True)


def _read_to_pixels(stream: HeaderBytes, syntax: TransferSyntax | None) -> tuple[Dataset, PixelLocation | None]:
    """Parse up to the pixel data; a transfer syntax that is not read is taken for the usual explicit encoding."""
    implicit = syntax is not None and syntax.implicit_vr
    little_endian = syntax is None or syntax.little_endian
    dataset = read_dataset(
        stream,
        is_implicit_VR=implicit,
        is_little_endian=little_endian,
        stop_when=_at_pixels,
        specific_tags=list(_TAGS),
    )
    return dataset, _located_pixels(stream, implicit=implicit, little_endian=little_endian)


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) in _ALL_PIXEL_TAGS


def _located_pixels(stream: HeaderBytes, *, implicit: bool, little_endian: bool) -> PixelLocation | None:
    """Where the value of the pixel data element at the current position lies; None at the end of the file."""
    order = "<" if little_endian else ">"
    head = stream.read(8)
    if len(head) < 8 or struct.unpack(order + "HH", head[:4]) != (_PIXEL_DATA >> 16, _PIXEL_DATA & 0xFFFF):
        return None
    if not implicit and head[4:6] in _LONG_VRS:
        head = head[:4] + stream.read(4)
        if len(head) < 8:
            return None
    (length,) = struct.unpack(order + "L", head[4:8])
    return PixelLocation(stream.tell(), None if length == _UNDEFINED_LENGTH else length)


def _slice_header(
    file: ScanFile, syntax: TransferSyntax | None, dataset: Dataset, pixels: PixelLocation | None
) -> SliceHeader:
    little_endian = syntax is None or syntax.little_endian
    return SliceHeader(
        file=file,
        transfer_syntax=syntax,
        sop_class_uid=values.uid(dataset, 0x00080016),
        sop_instance_uid=values.uid(dataset, 0x00080018),
        study_instance_uid=values.uid(dataset, 0x0020000D),
        series_instance_uid=values.uid(dataset, 0x0020000E),
        frame_of_reference_uid=values.uid(dataset, 0x00200052),
        modality=values.code(dataset, 0x00080060),
        image_type=values.codes(dataset, 0x00080008),
        instance_number=values.integer(dataset, 0x00200013),
        body_part=values.code(dataset, 0x00180015),
        kernel=values.short_text(dataset, 0x00181210),
        has_contrast=values.encoded(dataset, 0x00180010) is not None or 0x00180012 in dataset,
        is_lossy=values.code(dataset, 0x00282110) == "01" or (syntax is not None and syntax.lossy),
        slice_thickness_mm=values.number(dataset, 0x00180050),
        gantry_tilt_deg=values.number(dataset, 0x00181120),
        position_lps_mm=values.numbers(dataset, 0x00200032),
        orientation_lps=values.numbers(dataset, 0x00200037),
        pixel_spacing_mm=values.numbers(dataset, 0x00280030),
        rescale_slope=values.number(dataset, 0x00281053),
        rescale_intercept=values.number(dataset, 0x00281052),
        rescale_type=values.code(dataset, 0x00281054),
        samples_per_pixel=values.unsigned_short(dataset, 0x00280002, little_endian=little_endian),
        photometric=values.code(dataset, 0x00280004),
        frame_count=(values.integer(dataset, 0x00280008) or 0) if 0x00280008 in dataset else 1,
        pixel_format=_pixel_format(dataset, little_endian=little_endian),
        pixels=pixels,
    )


def _pixel_format(dataset: Dataset, *, little_endian: bool) -> PixelFormat | None:
    """None unless all attributes are there; their values are judged when pixels are read."""
    layout = [
        values.unsigned_short(dataset, tag, little_endian=little_endian)
        for tag in (0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
    ]
    if any(value is None for value in layout):
        return None
    rows, columns, allocated, stored, high_bit, representation = (int(value or 0) for value in layout)
    pixel_format = PixelFormat(rows, columns, allocated, stored, high_bit, representation == 1, little_endian)
    read_padding = values.signed_short if representation == 1 else values.unsigned_short
    padding = read_padding(dataset, 0x00280120, little_endian=little_endian)
    if padding is None:
        return pixel_format
    limit = read_padding(dataset, 0x00280121, little_endian=little_endian)
    other = padding if limit is None else limit
    return replace(pixel_format, padding=(min(padding, other), max(padding, other)))
