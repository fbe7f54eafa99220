"""Deflated transfer syntax: inflated by ourselves, because pydicom would do it without any limit."""

from __future__ import annotations

import zlib
from pathlib import Path

from app.imaging.errors import UploadTooLarge
from app.imaging.inputs import ScanFile
from app.imaging.read_options import ReadLimits
from app.imaging.slice_header import damaged
from app.imaging.transfer_syntax import EXPLICIT_LITTLE

_CHUNK = 1 << 20


def inflated(file: ScanFile, dataset_offset: int, scratch: Path, limits: ReadLimits) -> ScanFile:
    """Write a deflated file as an explicit little endian one.

    Parameters
    ----------
    file
        DICOM file in the deflated transfer syntax.
    dataset_offset
        Where its file meta group ends and the deflated dataset begins.
    scratch
        Folder for the result; the caller removes it.
    limits
        Bytes and ratio.

    Raises
    ------
    UploadTooLarge
        ``compression_ratio``, as soon as the limit is passed.
    UnreadableScan
        ``truncated`` or ``damaged_header``.
    """
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    path = scratch / "inflated"
    # One file for all, so that its size is the total.
    with path.open("ab") as out:
        start = out.tell()
        cap = max(limits.min_ratio_bytes, int(limits.max_compression_ratio * file.size))
        cap = min(cap, limits.max_total_bytes - start)
        out.write(_file_meta())
        pending, position = b"", dataset_offset
        while not engine.eof:
            if not pending:
                pending = file.read(position, _CHUNK)
                position += len(pending)
            if not pending:
                raise damaged(file, "its deflated dataset ends early", code="truncated")
            try:
                out.write(engine.decompress(pending, _CHUNK))
            except zlib.error as fault:
                raise damaged(file, "its deflated dataset cannot be inflated") from fault
            pending = engine.unconsumed_tail
            if out.tell() - start > cap:
                raise UploadTooLarge(
                    f"File {file.index} inflates to over {cap} bytes, which is more than is read.",
                    code="compression_ratio",
                    values={"file": file.index, "max_bytes": cap},
                )
        size = out.tell() - start
    return ScanFile(file.index, file.name, path, start, size)


def _file_meta() -> bytes:
    """Preamble and the one file meta element that reading needs."""
    uid = EXPLICIT_LITTLE.encode() + b"\0" * (len(EXPLICIT_LITTLE) % 2)
    return b"\0" * 128 + b"DICM" + b"\x02\x00\x10\x00UI" + len(uid).to_bytes(2, "little") + uid
