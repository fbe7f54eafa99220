"""Compressed frames are found by their fragments, however the sender cut them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended

from app.imaging.encapsulation import frame_fragments
from app.imaging.errors import UnreadableScan
from app.imaging.inputs import ScanFile
from app.imaging.slice_header import PixelLocation, SliceHeader
from app.imaging.transfer_syntax import TRANSFER_SYNTAXES
from app.imaging.volume import Grid
from tests.imaging.dicom_worlds import slice_headers

END = b"\xfe\xff\xdd\xe0\0\0\0\0"
LEAD = b"header before the pixels, and another file before that"


def encapsulated(path: Path, value: bytes, frames: int) -> SliceHeader:
    """Header of a file that lies within a larger one, with more bytes behind it."""
    path.write_bytes(LEAD + value + b"another file")
    return replace(
        slice_headers(Grid.from_spacing((2, 4, 4)))[0],
        file=ScanFile(3, "x", path, 6, len(LEAD) - 6 + len(value)),
        transfer_syntax=TRANSFER_SYNTAXES["1.2.840.10008.1.2.5"],
        pixels=PixelLocation(len(LEAD) - 6, None),
        frame_count=frames,
    )


def joined(header: SliceHeader) -> list[bytes]:
    return [b"".join(header.file.read(*span) for span in spans) for spans in frame_fragments(header)]


def even(frame: bytes) -> bytes:
    return frame + b"\0" * (len(frame) % 2)


@given(st.lists(st.binary(min_size=8, max_size=80), min_size=1, max_size=6), st.integers(1, 4), st.booleans())
def test_frames_come_back(
    tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], fragments: int, has_table: bool
) -> None:
    has_table = has_table or (fragments > 1 and len(frames) > 1)
    value = encapsulate(frames, fragments_per_frame=fragments, has_bot=has_table) + END
    header = encapsulated(tmp_path_factory.mktemp("frames") / "x", value, len(frames))
    assert joined(header) == [even(frame) for frame in frames]


def test_extended_offset_table(tmp_path: Path) -> None:
    frames = [b"first!", b"second"]
    assert joined(encapsulated(tmp_path / "x", encapsulate_extended(frames)[0] + END, 2)) == frames


@pytest.mark.parametrize(
    ("value", "frames", "code"),
    [
        (encapsulate([b"12345678"]), 1, "truncated"),
        (encapsulate([b"12345678"])[:-4], 1, "truncated"),
        (b"", 1, "truncated"),
        (END, 1, "damaged_pixels"),
        (b"\xfe\xff\x00\xe0\0\0\0\0" + END, 1, "damaged_pixels"),
        (b"no item at all, but bytes", 1, "damaged_pixels"),
        (encapsulate([b"1234", b"5678"]) + END, 3, "damaged_pixels"),
        (encapsulate([b"1234", b"5678", b"9012"], has_bot=False) + END, 2, "damaged_pixels"),
        (b"\xfe\xff\x00\xe0\0\0\0\0" * 1200 + END, 1, "damaged_pixels"),
    ],
    ids=["no end", "cut", "nothing", "no table", "no fragment", "junk", "too few", "no table to tell", "too many"],
)
def test_fragments_that_make_no_frames(tmp_path: Path, value: bytes, frames: int, code: str) -> None:
    with pytest.raises(UnreadableScan) as caught:
        frame_fragments(encapsulated(tmp_path / "x", value, frames))
    assert (caught.value.code, caught.value.values["file"]) == (code, 3)
