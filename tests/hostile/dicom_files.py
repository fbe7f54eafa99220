"""Rows 1 to 21 of the list: files that break a reader of DICOM."""

from __future__ import annotations

import struct
from pathlib import Path

from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.hostile.worlds import (
    CANARY,
    SHAPE_ZYX,
    deflated_zeros,
    edited,
    element,
    header_with,
    one,
    rewritten,
    spoiled,
    written,
)


def empty_file(folder: Path) -> list[Path]:
    return one(folder, b"")


def text(folder: Path) -> list[Path]:
    return one(folder, f"Dear doctor, please find enclosed {CANARY}".encode() * 20)


def picture(folder: Path) -> list[Path]:
    return one(folder, b"\x89PNG\r\n\x1a\n" + bytes(500) + CANARY.encode())


def document(folder: Path) -> list[Path]:
    return one(folder, b"%PDF-1.7\n" + CANARY.encode() * 200)


def without_preamble(folder: Path) -> list[Path]:
    paths = written(folder)
    for path in paths:
        path.write_bytes(path.read_bytes()[132:])
    return paths


def header_cut(folder: Path) -> list[Path]:
    return spoiled(folder, lambda data: data[:700])


def meta_cut(folder: Path) -> list[Path]:
    return spoiled(folder, lambda data: data[:140])


def pixels_cut(folder: Path) -> list[Path]:
    return spoiled(folder, lambda data: data[:-2])


def compressed_pixels_cut(folder: Path) -> list[Path]:
    return spoiled(folder, lambda data: data[:-40], transfer_syntax_uid=RLELossless)


def enhanced_pixels_cut(folder: Path) -> list[Path]:
    return spoiled(folder, lambda data: data[:-2000], which=0, enhanced=True)


def huge_matrix(folder: Path) -> list[Path]:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.Rows = dataset.Columns = 65535

    return written(folder, edit)


def no_rows(folder: Path) -> list[Path]:
    return edited(folder, "Rows", 0)


def three_bits(folder: Path) -> list[Path]:
    return edited(folder, "BitsAllocated", 3)


def colour(folder: Path) -> list[Path]:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"

    return written(folder, edit)


def frames_without_end(folder: Path) -> list[Path]:
    return edited(folder, "NumberOfFrames", 2**31 - 1)


def rle_bomb(folder: Path) -> list[Path]:
    """6 MB of run lengths for 14000 x 14000 pixels, 400 MB."""
    return _rle(folder, 14000, slices=1)


def rle_bombs_within_the_matrix(folder: Path) -> list[Path]:
    """Each of 24 slices is one that may be read; together they are 800 MB from 12."""
    return _rle(folder, 4096, slices=SHAPE_ZYX[0])


def _rle(folder: Path, size: int, slices: int) -> list[Path]:
    runs, rest = divmod(size * size, 128)
    segment = b"\x81\x00" * runs + (bytes([257 - rest, 0]) if rest > 1 else b"")
    segment += b"\0" * (len(segment) % 2)
    head = struct.pack("<16L", 2, 64, 64 + len(segment), *[0] * 13)
    value = encapsulate([head + segment + segment])

    def edit(dataset: Dataset, z: int) -> None:
        if z < slices:
            dataset.Rows = dataset.Columns = size
            dataset.PixelData = value
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True

    return written(folder, edit, transfer_syntax_uid=RLELossless)


def deflate_bomb(folder: Path) -> list[Path]:
    """2 MB that inflate to 2 GiB."""
    return _deflated(folder, deflated_zeros(2048))


def deflate_bomb_behind_a_header(folder: Path) -> list[Path]:
    """The first block looks like elements; its length is asked for only when the rest is there."""
    return _deflated(folder, deflated_zeros(600))


def _deflated(folder: Path, stream: bytes) -> list[Path]:
    def bomb(data: bytes) -> bytes:
        return data[: 144 + struct.unpack("<L", data[140:144])[0]] + stream

    return spoiled(folder, bomb, which=0, transfer_syntax_uid=DeflatedExplicitVRLittleEndian)


def jpeg_2000_bomb(folder: Path) -> list[Path]:
    """A SIZ marker of 40000 x 40000 in a slice of 64 x 64: gdcm aborts its process."""
    small, huge = struct.pack(">LL", 64, 64), struct.pack(">LL", 40000, 40000)
    return spoiled(folder, lambda data: data.replace(small, huge), transfer_syntax_uid=JPEG2000Lossless)


def jpeg_ls_garbage(folder: Path) -> list[Path]:
    return _garbage(folder, JPEGLSLossless)


def jpeg_2000_garbage(folder: Path) -> list[Path]:
    return _garbage(folder, JPEG2000Lossless)


def _garbage(folder: Path, syntax: str) -> list[Path]:
    def edit(dataset: Dataset, z: int) -> None:
        if z == 5:
            dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + CANARY.encode() * 40])
            dataset["PixelData"].is_undefined_length = True

    return written(folder, edit, transfer_syntax_uid=syntax)


def film(folder: Path) -> list[Path]:
    """MPEG-2."""

    def edit(dataset: Dataset, _: int) -> None:
        dataset.PixelData = encapsulate([b"\0\0\1\xb3" + bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"

    return written(folder, edit)


def syntax_of_nobody(folder: Path) -> list[Path]:
    paths = written(folder)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    return paths


def unknown_vr_in_meta(folder: Path) -> list[Path]:
    return spoiled(folder, lambda data: data[:132] + element(2, 0, b"ZZ", 0xFFF0) + data[144:])


def endless_element(folder: Path) -> list[Path]:
    return spoiled(folder, header_with(element(0x0008, 0x0019, b"UN", 0xFFFFFFF0)))


def nested_sequences(folder: Path) -> list[Path]:
    item = element(0x0009, 0x1001, b"SQ", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return spoiled(folder, header_with(item * 5000))


def private_elements(folder: Path) -> list[Path]:
    """300 000 of them, in groups 9, 11, ... of 60 000."""
    many = b"".join(
        element(group, number, b"SH", 2, b"xx") for group in range(9, 19, 2) for number in range(0x1000, 0x1000 + 60000)
    )
    # Behind the groups of the header that lie before them and before the pixels, as sorted as a file is.
    return spoiled(folder, lambda data: data.replace(b"\x10\x00\x10\x00PN", many + b"\x10\x00\x10\x00PN", 1))


def uid_that_is_a_path(folder: Path) -> list[Path]:
    def edit(data: bytes) -> bytes:
        at = data.index(b"\x08\x00\x18\x00UI")
        (length,) = struct.unpack("<H", data[at + 6 : at + 8])
        return data[: at + 8] + b"../../../etc/passwd".ljust(length, b"\0") + data[at + 8 + length :]

    return spoiled(folder, edit)


def name_that_is_a_program(folder: Path) -> list[Path]:
    paths = written(folder)
    for path in paths:
        rewritten(path, _script)
    return paths


def _script(dataset: Dataset) -> None:
    dataset.add_new("PatientName", "PN", f'{CANARY}"}}^<script>alert(1)</script>^{{"event":"x"}}')
    dataset.add_new("PatientComments", "LT", f'{CANARY}\r\n{{"event": "{CANARY}"}}')
    dataset.add_new("StudyDescription", "LO", f"<img src=x onerror=alert('{CANARY}')>")


def character_set_of_nobody(folder: Path) -> list[Path]:
    def spoil(data: bytes) -> bytes:
        return data.replace(b"ISO_IR 192", b"QUAGGA 999").replace(b"ISO_IR 100", b"QUAGGA 999")

    paths = written(folder, lambda dataset, _: setattr(dataset, "SpecificCharacterSet", "ISO_IR 192"))
    for path in paths:
        path.write_bytes(spoil(path.read_bytes()))
    return paths


def program_in_the_preamble(folder: Path) -> list[Path]:
    paths = written(folder)
    for path, start in zip(paths, [b"MZ", b"\x7fELF"] * len(paths), strict=False):
        path.write_bytes(start + path.read_bytes()[len(start) :])
    return paths
