"""Where the compressed frames of encapsulated pixel data lie (PS3.5 A.4); nothing is decoded here."""

from __future__ import annotations

import struct
from bisect import bisect_left
from itertools import pairwise

from app.imaging.slice_header import SliceHeader, damaged

_ITEM = struct.Struct("<HHL")
_ITEM_TAG = (0xFFFE, 0xE000)
_END_TAG = (0xFFFE, 0xE0DD)

_FRAGMENTS_PER_FRAME, _SPARE_FRAGMENTS = 64, 1024
"""More are not a way of writing an image but of keeping a reader busy."""

Fragment = tuple[int, int]
"""Offset from the start of the file and size, in bytes."""


def frame_fragments(header: SliceHeader) -> list[tuple[Fragment, ...]]:
    """Fragments of each frame in the file of ``header``.

    Returns
    -------
    list
        One tuple for each of ``header.frame_count`` frames; a frame is its fragments joined.

    Raises
    ------
    UnreadableScan
        ``truncated`` when an item reaches beyond the file, ``damaged_pixels`` when fragments do not make up the frames.
    """
    offsets, fragments = _items(header)
    if header.frame_count == 1:
        frames = [tuple(fragments)]
    elif len(fragments) == header.frame_count:
        frames = [(fragment,) for fragment in fragments]
    else:
        frames = _by_offset_table(offsets, fragments)
    if len(frames) != header.frame_count or not all(frames):
        raise damaged(header.file, "its fragments do not make up NumberOfFrames frames", code="damaged_pixels")
    return frames


def end_of_pixels(header: SliceHeader) -> int:
    """Offset, from the start of the file, of the first byte after encapsulated pixel data.

    Raises
    ------
    UnreadableScan
        As `frame_fragments`.
    """
    _, fragments = _items(header)
    if not fragments:
        raise damaged(header.file, "its pixel data has no fragments", code="damaged_pixels")
    start, size = fragments[-1]
    return start + size + _ITEM.size


def _items(header: SliceHeader) -> tuple[list[int], list[Fragment]]:
    """Basic offset table and fragments, in file order."""
    position = header.pixels.offset if header.pixels else header.file.size
    spans: list[Fragment] = []
    most = _SPARE_FRAGMENTS + _FRAGMENTS_PER_FRAME * header.frame_count
    with header.file.path.open("rb") as stream:
        while True:
            stream.seek(header.file.offset + position)
            head = stream.read(_ITEM.size)
            if len(head) < _ITEM.size or position + _ITEM.size > header.file.size:
                raise damaged(header.file, "its pixel data ends early", code="truncated")
            group, element, size = _ITEM.unpack(head)
            if (group, element) == _END_TAG:
                break
            if (group, element) != _ITEM_TAG:
                raise damaged(header.file, "its pixel data is not a sequence of items", code="damaged_pixels")
            position += _ITEM.size
            spans.append((position, size))
            if len(spans) > most:
                raise damaged(header.file, f"its pixel data has over {most} fragments", code="damaged_pixels")
            position += size
    if not spans:
        raise damaged(header.file, "its pixel data has no offset table", code="damaged_pixels")
    table = header.file.read(*spans[0])
    offsets = [int(offset) for (offset,) in struct.iter_unpack("<L", table[: len(table) // 4 * 4])]
    return offsets, spans[1:]


def _by_offset_table(offsets: list[int], fragments: list[Fragment]) -> list[tuple[Fragment, ...]]:
    """Group fragments by the frame whose first item the table points at."""
    if not fragments:
        return []
    base = fragments[0][0]
    starts = [offset for offset, _ in fragments]
    firsts = [bisect_left(starts, base + offset) for offset in offsets]
    return [tuple(fragments[first:last]) for first, last in pairwise([*firsts, len(fragments)])]
