"""Pixels of a stack of slices as HU in one preallocated array.

Uncompressed slices are read in place. Compressed ones are decoded in child processes, several at a time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.child_process import ChildFailedError, PixelWorker, PixelWorkers
from app.imaging.encapsulation import Fragment, frame_fragments
from app.imaging.errors import UnreadableScan
from app.imaging.hounsfield import write_hu
from app.imaging.inputs import ScanFile
from app.imaging.pixel_checks import format_of
from app.imaging.slice_header import SliceHeader, damaged

_READ_THREADS = 2
"""Reading and rescaling leave the interpreter lock to others; more threads wait for memory."""

Progress = Callable[[float], None]


def read_hu(headers: Sequence[SliceHeader], workers: PixelWorkers, on_progress: Progress) -> NDArray[np.int16]:
    """Read slices that passed `app.imaging.pixel_checks.check_pixels`.

    Parameters
    ----------
    headers
        Slices of one size, in array order.
    workers
        Decode compressed slices; started here if they are not yet, and dead afterwards.
    on_progress
        Called with a fraction from the calling thread.

    Returns
    -------
    numpy.ndarray
        int16 HU (z, y, x).

    Raises
    ------
    UnreadableScan
        ``truncated``, ``damaged_pixels`` or ``decode_failed``; names the file by its index.
    """
    layout = format_of(headers[0])
    hu = np.empty((len(headers), layout.rows, layout.columns), np.int16)
    if any(is_compressed(header) for header in headers):
        _decode_compressed(headers, hu, workers, on_progress)
        return hu
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        slices = pool.map(lambda z: _rescale(headers[z], _uncompressed(headers[z], hu[z]), hu[z]), range(len(headers)))
        for done, _ in enumerate(slices, start=1):
            on_progress(done / len(headers))
    return hu


def same_pixels(one: SliceHeader, other: SliceHeader) -> bool:
    """Whether two slices hold the same encoded bytes with the same meaning."""
    if one.file == other.file and one.frame_number == other.frame_number:
        return True
    meaning = (
        (header.transfer_syntax, header.pixel_format, header.rescale_slope, header.rescale_intercept)
        for header in (one, other)
    )
    return next(meaning) == next(meaning) and _digest(one) == _digest(other)


def _digest(header: SliceHeader) -> bytes:
    if is_compressed(header):
        encoded = b"".join(header.file.read(*span) for span in frame_fragments(header)[header.frame_index])
    else:
        layout = format_of(header)
        encoded = _uncompressed(header, np.empty((layout.rows, layout.columns), np.int16)).tobytes()
    return hashlib.sha256(encoded).digest()


def is_compressed(header: SliceHeader) -> bool:
    """Whether its pixels must be decoded."""
    return header.transfer_syntax is not None and header.transfer_syntax.compressed


def _uncompressed(header: SliceHeader, out: NDArray[np.int16]) -> NDArray[Any]:
    """Read the stored values of one frame into ``out``, (rows, columns); the same memory as what they are."""
    layout = format_of(header)
    start = (header.pixels.offset if header.pixels else 0) + header.frame_index * layout.frame_bytes
    with header.file.path.open("rb") as stream:
        stream.seek(header.file.offset + start)
        count = stream.readinto(out.data.cast("B"))
    if count != layout.frame_bytes:
        raise damaged(header.file, "its pixel data ends early", code="truncated")
    stored = out.view(np.int16 if layout.is_signed else np.uint16)
    return stored if layout.little_endian == (sys.byteorder == "little") else stored.byteswap(inplace=True)


def _rescale(header: SliceHeader, stored: NDArray[Any], out: NDArray[np.int16]) -> None:
    slope = 1.0 if header.rescale_slope is None else header.rescale_slope
    write_hu(stored, format_of(header), slope, header.rescale_intercept or 0.0, out)


def _decode_compressed(
    headers: Sequence[SliceHeader], hu: NDArray[np.int16], workers: PixelWorkers, on_progress: Progress
) -> None:
    """Decode in all children at once, each served by one thread."""
    fragments = _fragments_by_slice(headers)
    # No more threads than children: one that waited could get a child that a later slice has killed, and be blamed.
    pool = ThreadPoolExecutor(workers.start(len(headers)))

    def decode(z: int) -> None:
        child = workers.idle.get()
        try:
            spans = fragments[z]
            stored = _uncompressed(headers[z], hu[z]) if spans is None else _decoded(headers[z], spans, child)
            _rescale(headers[z], stored, hu[z])
        finally:
            workers.idle.put(child)

    try:
        for done, _ in enumerate(pool.map(decode, range(len(headers))), start=1):
            on_progress(done / len(headers))
    finally:
        # First the children, so that threads that wait for one return.
        workers.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _fragments_by_slice(headers: Sequence[SliceHeader]) -> list[tuple[Fragment, ...] | None]:
    """Where each slice's compressed bytes lie; None for an uncompressed slice. Each file is looked at once."""
    by_file: dict[ScanFile, list[tuple[Fragment, ...]]] = {}
    found: list[tuple[Fragment, ...] | None] = []
    for header in headers:
        if not is_compressed(header):
            found.append(None)
            continue
        if header.file not in by_file:
            by_file[header.file] = frame_fragments(header)
        found.append(by_file[header.file][header.frame_index])
    return found


def _decoded(header: SliceHeader, fragments: Sequence[Fragment], child: PixelWorker) -> NDArray[Any]:
    layout, syntax = format_of(header), header.transfer_syntax
    request = {
        "path": str(header.file.path),
        "fragments": [(header.file.offset + offset, size) for offset, size in fragments],
        "transfer_syntax_uid": syntax.uid if syntax else "",
        "decoder": syntax.decoder if syntax else "",
        "pixel_module": {
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_stored,
            "pixel_representation": int(layout.is_signed),
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        },
    }
    try:
        answer, payload = child.ask(request, max_bytes=layout.frame_bytes)
        # A frame of another size than the header says does not fit the shape: ValueError.
        decoded = payload.view(np.dtype(answer["dtype"])).reshape(layout.rows, layout.columns)
        return np.asarray(decoded.astype(np.int16 if layout.is_signed else np.uint16, copy=False))
    except (ChildFailedError, KeyError, TypeError, ValueError) as fault:
        raise UnreadableScan(
            f"The compressed pixels of file {header.file.index} cannot be decoded within the limits of memory and "
            "time. Send it again from its source, or uncompressed.",
            code="decode_failed",
            values={
                "file": header.file.index,
                "frame": header.frame_number,
                "transfer_syntax_uid": request["transfer_syntax_uid"],
            },
        ) from fault
