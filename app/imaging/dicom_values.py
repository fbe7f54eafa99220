"""Values of a parsed DICOM dataset as plain numbers and short codes, straight from their encoded bytes.

pydicom converts a value on first access, and puts the raw value into a warning or an exception when it is not
valid: patient data in a log. Here the encoded bytes are read instead, and what is not valid is None.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_SHORT_TEXT = re.compile(r"[A-Za-z0-9 _+./-]{1,64}")


class BudgetSpentError(Exception):
    """The headers have more elements than are read."""


@dataclass
class ReadBudget:
    """How many reads the headers of an upload may still cost.

    Every element and every sequence item costs at least one, so this bounds the objects pydicom makes: 8 bytes of
    file can otherwise become 700 bytes of memory.
    """

    left: int

    def spend(self) -> None:
        """Take one; BudgetSpentError when none is left."""
        self.left -= 1
        if self.left < 0:
            raise BudgetSpentError


class HeaderBytes(io.BytesIO):
    """Header bytes as pydicom reads them: counts reads, and notices when it is led beyond the end."""

    def __init__(self, data: bytes, budget: ReadBudget) -> None:
        super().__init__(data)
        self._length = len(data)
        self._budget = budget
        self.overran = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as `io.BytesIO` does."""
        self._budget.spend()
        data = super().read(size)
        # pydicom asks for the 8 bytes of a next element to find the end: only that may find nothing.
        if size is not None and len(data) < size and (data or size != 8):
            self.overran = True
        return data

    def seek(self, position: int, whence: int = os.SEEK_SET, /) -> int:
        """Move as `io.BytesIO` does."""
        reached = super().seek(position, whence)
        self.overran = self.overran or reached > self._length
        return reached


def encoded(dataset: Dataset, tag: int) -> bytes | None:
    """Encoded value of an element; None when absent, empty or a sequence."""
    try:
        element = dataset.get_item(tag)
    except KeyError:
        return None
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
    return tuple(value for value in strings(dataset, tag) if _CODE.fullmatch(value))


def short_text(dataset: Dataset, tag: int) -> str | None:
    """Harmless text of up to 64 characters (a kernel name), or None when it holds anything unusual."""
    text = "/".join(strings(dataset, tag))
    return text if _SHORT_TEXT.fullmatch(text) else None


def numbers(dataset: Dataset, tag: int) -> tuple[float, ...] | None:
    """Values of a decimal or integer string; None when absent or when one of them is not a finite number."""
    parts = strings(dataset, tag)
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        return None
    return values if values and all(math.isfinite(value) for value in values) else None


def number(dataset: Dataset, tag: int) -> float | None:
    """A single finite decimal or integer string, or None."""
    values = numbers(dataset, tag)
    return values[0] if values is not None and len(values) == 1 else None


def integer(dataset: Dataset, tag: int) -> int | None:
    """A single integer string, or None."""
    value = number(dataset, tag)
    return int(value) if value is not None and value.is_integer() and abs(value) < 2**31 else None


def doubles(dataset: Dataset, tag: int, *, little_endian: bool) -> tuple[float, ...] | None:
    """FD values, or None."""
    value = encoded(dataset, tag)
    if value is None or len(value) % 8:
        return None
    values = struct.unpack(f"{'<' if little_endian else '>'}{len(value) // 8}d", value)
    return values if all(math.isfinite(each) for each in values) else None


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
    return int(struct.unpack(("<" if little_endian else ">") + kind, value)[0])


def items(dataset: Dataset, tag: int, budget: ReadBudget) -> Sequence[Dataset]:
    """Items of a sequence; empty when it is absent or not a sequence.

    A sequence of defined length is still encoded after parsing; it is read here at the cost of ``budget``.
    """
    if tag not in dataset:
        return ()
    element = dataset.get_item(tag)
    if not isinstance(element, RawDataElement):
        return list(element.value) if element.VR == "SQ" else ()
    if element.VR not in ("SQ", "UN", None) or not element.value:
        return ()
    implicit = element.is_implicit_VR or element.VR == "UN"
    stream = HeaderBytes(element.value, budget)
    return list(read_sequence(stream, implicit, element.is_little_endian, len(element.value), "iso8859"))
