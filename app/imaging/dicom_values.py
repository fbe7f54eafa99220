"""Values of a parsed DICOM dataset as plain numbers and short codes, straight from their encoded bytes.

pydicom converts a value on first access, and puts the raw value into a warning or an exception when it is not
valid: patient data in a log. Here the encoded bytes are read instead, and what is not valid is None.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_SHORT_TEXT = re.compile(r"[A-Za-z0-9 _+./-]{1,64}")


def encoded(dataset: Dataset, tag: int) -> bytes | None:
    """Encoded value of an element; None when absent, empty or a sequence."""
    if tag not in dataset:
        return None
    element = dataset.get_item(tag)
    return element.value or None if isinstance(element, RawDataElement) else None


def strings(dataset: Dataset, tag: int) -> tuple[str, ...]:
    """Backslash-separated values with padding removed; undecodable bytes become U+FFFD."""
    value = encoded(dataset, tag)
    if value is None:
        return ()
    return tuple(part.strip(" \0\t\r\n") for part in value.decode("ascii", "replace").split("\\"))


def uid(dataset: Dataset, tag: int) -> str | None:
    """A UID of digits and dots, or None."""
    values = strings(dataset, tag)
    return values[0] if len(values) == 1 and _UID.fullmatch(values[0]) else None


def code(dataset: Dataset, tag: int) -> str | None:
    """First value of a code string, or None when it holds anything but capitals, digits, space and underscore."""
    values = codes(dataset, tag)
    return values[0] if values else None


def codes(dataset: Dataset, tag: int) -> tuple[str, ...]:
    """Values of a code string; those that are not valid are left out."""
    return tuple(value.strip() for value in strings(dataset, tag) if _CODE.fullmatch(value))


def short_text(dataset: Dataset, tag: int) -> str | None:
    """Harmless text of up to 64 characters (a kernel name), or None when it holds anything unusual."""
    text = "/".join(strings(dataset, tag))
    return text if _SHORT_TEXT.fullmatch(text) else None


def numbers(dataset: Dataset, tag: int) -> tuple[float, ...] | None:
    """Values of a decimal or integer string; None when absent or when one of them is not a finite number."""
    parts = strings(dataset, tag)
    if not parts:
        return None
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        return None
    return values if all(math.isfinite(value) for value in values) else None


def number(dataset: Dataset, tag: int) -> float | None:
    """A single finite decimal or integer string, or None."""
    values = numbers(dataset, tag)
    return values[0] if values is not None and len(values) == 1 else None


def integer(dataset: Dataset, tag: int) -> int | None:
    """A single integer string, or None."""
    value = number(dataset, tag)
    return int(value) if value is not None and value.is_integer() and abs(value) < 2**31 else None


def unsigned_short(dataset: Dataset, tag: int, *, little_endian: bool) -> int | None:
    """A single US value, or None."""
    return _short(dataset, tag, "H", little_endian=little_endian)


def signed_short(dataset: Dataset, tag: int, *, little_endian: bool) -> int | None:
    """A single SS value, or None."""
    return _short(dataset, tag, "h", little_endian=little_endian)


def _short(dataset: Dataset, tag: int, kind: str, *, little_endian: bool) -> int | None:
    value = encoded(dataset, tag)
    if value is None or len(value) != 2:
        return None
    return int(struct.unpack("<>"[not little_endian] + kind, value)[0])


def items(dataset: Dataset, tag: int) -> Sequence[Dataset]:
    """Items of a sequence; empty when it is absent or not a sequence."""
    if tag not in dataset:
        return ()
    element = dataset[tag]
    return list(element.value) if element.VR == "SQ" and element.value else ()


def first_item(dataset: Dataset, tag: int) -> Dataset | None:
    """First item of a sequence, or None."""
    found = items(dataset, tag)
    return found[0] if found else None
