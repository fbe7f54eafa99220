"""Rows 32 to 35: archives."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from functools import cache
from pathlib import Path

from tests.hostile.worlds import CANARY, MIB, crc_of_zeros, deflated_zeros, one, written


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sent(folder: Path, content: bytes) -> list[Path]:
    return one(folder, content, f"{CANARY}.zip")


def good_series(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in written(folder / "series")}


def end_record(entries: int, size: int, offset: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, size, offset, 0)


def entry(name: bytes, crc: int, packed: int, unpacked: int, offset: int) -> bytes:
    """Of the central directory."""
    fixed = (b"PK\x01\x02", 20, 20, 0, 8, 0, 0, crc, packed, unpacked, len(name), 0, 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3L5H2L", *fixed) + name


def local(name: bytes, crc: int, packed: int, unpacked: int) -> bytes:
    return struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 0, crc, packed, unpacked, len(name), 0) + name


def zeros(folder: Path) -> list[Path]:
    """1 GiB in 1 MB."""
    stream, name = deflated_zeros(1024), b"zeros.dcm"
    sizes = (crc_of_zeros(1), len(stream), 1024 * MIB)
    member = local(name, *sizes) + stream
    directory = entry(name, *sizes, 0)
    return sent(folder, member + directory + end_record(1, len(directory), len(member)))


def zeros_that_are_said_to_be_few(folder: Path) -> list[Path]:
    """The directory says 100 kB, the stream goes on to 1 GiB."""
    stream, name = deflated_zeros(1024), b"zeros.dcm"
    sizes = (crc_of_zeros(1), len(stream), 100_000)
    member = local(name, *sizes) + stream
    directory = entry(name, *sizes, 0)
    return sent(folder, member + directory + end_record(1, len(directory), len(member)))


def members_that_overlap(folder: Path) -> list[Path]:
    """One compressed kernel of 5 MiB, of which 2000 entries say that it is theirs: 10 GB."""
    stream, name = deflated_zeros(5), b"a"
    sizes = (crc_of_zeros(5), len(stream), 5 * MIB)
    member = local(name, *sizes) + stream
    directory = entry(name, *sizes, 0) * 2000
    return sent(folder, member + directory + end_record(2000, len(directory), len(member)))


def names_that_climb(folder: Path) -> list[Path]:
    """A good series under names that would write elsewhere, and a link: read all the same, as streams."""
    names = ["../../evil", "/etc/evil", "C:\\evil", "..\\evil", "n" * 300, "a\x01b", "con", "dir/../../evil"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for n, content in enumerate(good_series(folder).values()):
            archive.writestr(names[n] if n < len(names) else f"../{CANARY}{n}", content)
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return sent(folder, buffer.getvalue())


def name_with_nul(folder: Path) -> list[Path]:
    plain = zipped({f"{n:02d}XevilX.dcm": content for n, content in enumerate(good_series(folder).values())})
    return sent(folder, plain.replace(b"XevilX", b"\0evil\0"))


@cache
def _crowd() -> bytes:
    return zipped({str(n): b"" for n in range(100_000)}, zipfile.ZIP_STORED)


def hundred_thousand(folder: Path) -> list[Path]:
    return sent(folder, _crowd())


def nested(folder: Path) -> list[Path]:
    return sent(folder, zipped({"inner.zip": zipped(good_series(folder))}))


def encrypted(folder: Path) -> list[Path]:
    data = bytearray(zipped({"a.dcm": CANARY.encode()}, zipfile.ZIP_STORED))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return sent(folder, bytes(data))


def directory_cut(folder: Path) -> list[Path]:
    return sent(folder, zipped(good_series(folder))[:-100])
