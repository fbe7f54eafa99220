"""Zip intake: members are read as streams and never extracted by their name.

A stored member stays where it is, as a byte range of the archive; a deflated one is inflated into one spool file in
the scratch folder, at an offset reserved from its declared size, which zlib is not allowed to exceed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from app.imaging.acceptance import Notice
from app.imaging.errors import UnreadableScan, UploadTooLarge
from app.imaging.inputs import ScanFile, plain_name
from app.imaging.read_options import ReadLimits

_ENCRYPTED = 0x1
_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END_RECORD = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_ZIP64_END_RECORD = struct.Struct("<4sQ2H2L4Q")
_ZIP64_END_SIGNATURE = b"PK\x06\x06"
_ZIP64 = 0xFFFFFFFF
_END_SEARCH_BYTES = (1 << 16) + 1024
_MAX_ENTRY_BYTES = 1024
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_INFLATE_THREADS = 2
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, struct.error)


@dataclass(frozen=True)
class Unpacked:
    """Members of an archive as byte ranges, and those that were left out."""

    files: tuple[ScanFile, ...]
    ignored: tuple[Notice, ...]


def is_zip(head: bytes) -> bool:
    """Whether a file begins like a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(archive: ScanFile, scratch: Path, limits: ReadLimits, first_index: int) -> Unpacked:
    """Make the members of a zip archive readable as byte ranges.

    Parameters
    ----------
    archive
        The zip file.
    scratch
        Folder for the spool file; the caller removes it.
    limits
        Counts, sizes, ratio.
    first_index
        Index of the first member.

    Raises
    ------
    UploadTooLarge
        ``too_many_files``, ``too_large`` or ``compression_ratio``, before anything is inflated.
    UnreadableScan
        ``zip_damaged``, ``zip_encrypted``, ``zip_overlap`` or ``zip_method``.
    """
    try:
        with archive.path.open("rb") as stream:
            _check_directory_size(archive, stream, limits)
            opened = zipfile.ZipFile(stream)
            # Not is_dir(), which fails on an empty name.
            members = [member for member in opened.infolist() if not member.filename.endswith("/")]
            _check(archive, members, limits)
            wanted, ignored = _wanted(members, first_index)
            return Unpacked(_spooled(archive, opened, wanted, scratch), tuple(ignored))
    except _FAULTS as fault:
        if isinstance(fault, OSError) and fault.errno != errno.EINVAL:
            # A full disk is ours; seeking to where a damaged directory points is not.
            raise
        raise UnreadableScan(
            f"File {archive.index} is a damaged zip archive. Pack and send it again.",
            code="zip_damaged",
            values={"file": archive.index},
        ) from fault


def _check_directory_size(archive: ScanFile, stream: BinaryIO, limits: ReadLimits) -> None:
    """Refuse a huge central directory before `zipfile` makes an object of each of its entries.

    An entry takes at least 46 bytes, whatever number of entries the end record claims.
    """
    tail_start = max(0, archive.size - _END_SEARCH_BYTES)
    stream.seek(tail_start)
    tail = stream.read()
    at = tail.rfind(_END_SIGNATURE)
    if at < 0 or len(tail) - at < _END_RECORD.size:
        raise zipfile.BadZipFile("no end record")
    size = int(_END_RECORD.unpack_from(tail, at)[5])
    if size == _ZIP64:
        size = _zip64_directory_size(tail, at)
    if size > limits.max_files * _MAX_ENTRY_BYTES:
        raise UploadTooLarge(
            f"The archive has a directory of {size} bytes, more than {limits.max_files} files need.",
            code="too_many_files",
            values={"directory_bytes": size, "max_files": limits.max_files},
        )


def _zip64_directory_size(tail: bytes, end_record: int) -> int:
    """Directory size from the zip64 end record, which precedes its locator and the end record."""
    at = tail.rfind(_ZIP64_END_SIGNATURE, 0, end_record)
    if at < 0 or len(tail) - at < _ZIP64_END_RECORD.size:
        raise zipfile.BadZipFile("no zip64 end record")
    return int(_ZIP64_END_RECORD.unpack_from(tail, at)[8])


def _check(archive: ScanFile, members: Sequence[zipfile.ZipInfo], limits: ReadLimits) -> None:
    """Everything the central directory can tell: counts, sizes, encryption, overlap."""
    if len(members) > limits.max_files:
        raise UploadTooLarge(
            f"The archive holds {len(members)} files; at most {limits.max_files} are read.",
            code="too_many_files",
            values={"files": len(members), "max_files": limits.max_files},
        )
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise _refused(archive, "is encrypted. Send it without a password", "zip_encrypted")
    if any(member.compress_type not in _READABLE for member in members):
        raise _refused(archive, "uses a method other than deflate. Pack it again as plain zip", "zip_method")
    if _overlap(members):
        raise _refused(archive, "has members that share bytes", "zip_overlap")
    total = sum(member.file_size for member in members)
    if total > limits.max_total_bytes:
        raise UploadTooLarge(
            f"The archive unpacks to {total} bytes; at most {limits.max_total_bytes} are read.",
            values={"bytes": total, "max_total_bytes": limits.max_total_bytes},
        )
    if total > limits.min_ratio_bytes and total > limits.max_compression_ratio * archive.size:
        raise UploadTooLarge(
            f"The archive unpacks to {total / archive.size:.0f} times its size; at most "
            f"{limits.max_compression_ratio:.0f} times is read.",
            code="compression_ratio",
            values={"ratio": round(total / archive.size), "max_compression_ratio": limits.max_compression_ratio},
        )


def _refused(archive: ScanFile, why: str, code: str) -> UnreadableScan:
    return UnreadableScan(f"Zip archive {archive.index} {why}.", code=code, values={"file": archive.index})


def _overlap(members: Sequence[zipfile.ZipInfo]) -> bool:
    """Whether two members claim the same compressed bytes (a bomb that python's zipfile reads happily)."""
    spans = sorted((m.header_offset, m.header_offset + _LOCAL_HEADER.size + m.compress_size) for m in members)
    return any(start < end for (_, end), (start, _) in pairwise(spans))


def _wanted(
    members: Sequence[zipfile.ZipInfo], first_index: int
) -> tuple[list[tuple[int, zipfile.ZipInfo]], list[Notice]]:
    wanted, ignored = [], []
    for index, member in enumerate(members, start=first_index):
        if stat.S_ISLNK(member.external_attr >> 16):
            ignored.append(Notice("symlink", "A link inside the archive is not followed.", {"file": index}))
        elif member.file_size:
            wanted.append((index, member))
        else:
            ignored.append(Notice("empty_file", "The file is empty.", {"file": index}))
    return wanted, ignored


def _spooled(
    archive: ScanFile, opened: zipfile.ZipFile, wanted: Sequence[tuple[int, zipfile.ZipInfo]], scratch: Path
) -> tuple[ScanFile, ...]:
    """Check every member's CRC; inflate the deflated ones into one spool file, a few at a time."""
    spool = scratch / f"archive-{archive.index}"
    files, offset = [], 0
    descriptor = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        jobs: list[tuple[zipfile.ZipInfo, int | None]] = []
        for index, member in wanted:
            name = plain_name(member.filename)
            if member.compress_type == zipfile.ZIP_STORED:
                start = _data_offset(archive, member)
                files.append(ScanFile(index, name, archive.path, archive.offset + start, member.file_size))
                jobs.append((member, None))
            else:
                files.append(ScanFile(index, name, spool, offset, member.file_size))
                jobs.append((member, offset))
                offset += member.file_size
        with ThreadPoolExecutor(_INFLATE_THREADS) as pool:
            list(pool.map(lambda job: _read_member(opened, job[0], descriptor, job[1]), jobs))
    finally:
        os.close(descriptor)
    return tuple(files)


def _data_offset(archive: ScanFile, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin; the local header's own name and extra field may differ in length."""
    header = _LOCAL_HEADER.unpack(archive.read(member.header_offset, _LOCAL_HEADER.size))
    start = member.header_offset + _LOCAL_HEADER.size + int(header[-2]) + int(header[-1])
    if member.compress_size != member.file_size or start + member.file_size > archive.size:
        raise zipfile.BadZipFile("a stored member reaches beyond the archive")
    return start


def _read_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, descriptor: int, offset: int | None) -> None:
    """Read to the end, which checks the CRC; write to the spool when there is an offset."""
    done = 0
    with opened.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            if offset is not None:
                os.pwrite(descriptor, chunk, offset + done)
            done += len(chunk)
    if done != member.file_size:
        raise zipfile.BadZipFile("a member is shorter than the directory says")
