"""Files made to break a reader: each is refused with its code, quickly, in little memory, naming no patient."""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from app.imaging.dicom_headers import read_slice_headers
from app.imaging.dicom_values import ReadBudget
from app.imaging.errors import ScanError, UnreadableScan, UnsupportedFormat, UploadTooLarge
from app.imaging.inputs import ScanFile
from app.imaging.reading import read_ct
from app.phantom.dicom_series import write_dicom_series
from tests.hostile.worlds import Spoil, element, header_with
from tests.imaging.dicom_worlds import SMALL, options, tiny_ct, write_tiny

_US = struct.Struct("<H")


def refusal(source: Path | list[Path]) -> ScanError:
    """The error that reading raises; its text may name no patient and no file."""
    with pytest.raises(ScanError) as caught:
        read_ct(source, options())
    said = f"{caught.value.message} {json.dumps(caught.value.values)}"
    assert "PHANTOM" not in said
    assert "IM0" not in said
    return caught.value


def spoiled(folder: Path, spoil: Spoil, which: int = 3) -> list[Path]:
    """A good series of which one file is spoiled, byte for byte."""
    paths = write_tiny(folder)
    paths[which].write_bytes(spoil(paths[which].read_bytes()))
    return paths


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_upload"),
        (b"Dear doctor, please find enclosed", "not_dicom"),
        (b"%PDF-1.7\n" + bytes(500), "not_dicom"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not_dicom"),
        (bytes(128) + b"DICM", "truncated"),
    ],
    ids=["empty", "text", "pdf", "png", "preamble only"],
)
def test_not_an_image(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "IM0.dcm").write_bytes(content)
    assert refusal(tmp_path / "IM0.dcm").code == code


def test_no_preamble(tmp_path: Path) -> None:
    for path in write_tiny(tmp_path):
        path.write_bytes(path.read_bytes()[132:])
    assert refusal(tmp_path).code == "no_preamble"


@pytest.mark.parametrize("kept", [140, 300, 700, 1000])
def test_header_truncated(tmp_path: Path, kept: int) -> None:
    error = refusal(spoiled(tmp_path, lambda data: data[:kept]))
    assert isinstance(error, UnreadableScan)
    assert (error.code, error.values["file"]) == ("truncated", 3)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_pixels_truncated(tmp_path: Path, enhanced: bool) -> None:
    paths = write_tiny(tmp_path, enhanced=enhanced)
    paths[0].write_bytes(paths[0].read_bytes()[:-2])
    assert refusal(tmp_path).code == "truncated"


def test_compressed_pixels_truncated(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path, transfer_syntax_uid=RLELossless)
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    error = refusal(tmp_path)
    assert (error.code, error.values["file"]) == ("truncated", 2)


@pytest.mark.parametrize(
    ("attribute", "value", "code"),
    [
        ("Rows", 65535, "invalid_pixel_format"),
        ("Rows", 4000, "length_mismatch"),
        ("Rows", 11, "length_mismatch"),
        ("Rows", 0, "invalid_pixel_format"),
        ("Columns", 1, "invalid_pixel_format"),
        ("BitsAllocated", 3, "invalid_pixel_format"),
        ("BitsStored", 17, "invalid_pixel_format"),
        ("HighBit", 3, "invalid_pixel_format"),
        ("SamplesPerPixel", 3, "invalid_pixel_format"),
        ("PhotometricInterpretation", "RGB", "invalid_pixel_format"),
        ("NumberOfFrames", 2**31 - 1, "invalid_pixel_format"),
        ("NumberOfFrames", -1, "invalid_pixel_format"),
        ("NumberOfFrames", 2, "invalid_pixel_format"),
        ("RescaleSlope", "1e38", "invalid_rescale"),
        ("RescaleSlope", "0", "invalid_rescale"),
        ("RescaleSlope", "-1", "invalid_rescale"),
        ("RescaleIntercept", "1e38", "invalid_rescale"),
        ("RescaleIntercept", None, "missing_rescale"),
        ("SOPInstanceUID", None, "invalid_uid"),
        ("PixelSpacing", ["0", "0"], "invalid_geometry"),
        ("PixelSpacing", ["-0.7", "0.7"], "invalid_geometry"),
        ("PixelSpacing", ["1e30", "1e30"], "invalid_geometry"),
        ("ImageOrientationPatient", ["0"] * 6, "invalid_geometry"),
        ("ImageOrientationPatient", None, "invalid_geometry"),
        ("ImagePositionPatient", ["1", "2"], "invalid_geometry"),
        ("ImagePositionPatient", ["1", "2", "1e30"], "invalid_geometry"),
    ],
)
def test_header_values_that_make_no_image(tmp_path: Path, attribute: str, value: object, code: str) -> None:
    def spoil(dataset: Dataset, _: int) -> None:
        if value is None:
            delattr(dataset, attribute)
        else:
            setattr(dataset, attribute, value)

    assert refusal(write_tiny(tmp_path, spoil)).code == code


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.51", "1.2.3.4"])
def test_transfer_syntax_that_is_not_read(tmp_path: Path, uid: str) -> None:
    def mpeg(dataset: Dataset, _: int) -> None:
        dataset.PixelData = encapsulate([b"\0\0\1\xb3" + bytes(60)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = uid

    paths = write_dicom_series(tiny_ct(), tmp_path, edit=mpeg) if uid != "1.2.3.4" else write_tiny(tmp_path)
    if uid == "1.2.3.4":
        for path in paths:
            path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    error = refusal(tmp_path)
    assert isinstance(error, UnsupportedFormat)
    assert error.code == "transfer_syntax"
    assert JPEG2000Lossless in error.values["supported"]


def test_deflate_bomb(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path, transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(engine.compress(bytes(1 << 20)) for _ in range(80)) + engine.flush()
    data = paths[0].read_bytes()
    meta_end = 144 + struct.unpack("<L", data[140:144])[0]
    paths[0].write_bytes(data[:meta_end] + bomb)
    error = refusal(paths)
    assert isinstance(error, UploadTooLarge)
    assert error.code == "compression_ratio"


def test_deflated_and_truncated(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path, transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    error = refusal(paths)
    assert (error.code, error.values["file"]) == ("truncated", 1)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=["J2K", "JPEG-LS"])
def test_garbage_for_a_bit_stream(tmp_path: Path, syntax: str) -> None:
    def garbage(dataset: Dataset, z: int) -> None:
        if z == 5:
            dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(range(200))])
            dataset["PixelData"].is_undefined_length = True

    write_dicom_series(tiny_ct((8, 32, 32)), tmp_path, transfer_syntax_uid=syntax, edit=garbage)
    error = refusal(tmp_path)
    assert (error.code, error.values["file"]) == ("decode_failed", 5)


def test_jpeg_2000_that_claims_a_huge_image(tmp_path: Path) -> None:
    """A SIZ marker of 40000 x 40000 in a slice of 32 x 32: gdcm aborts the process on it."""
    paths = write_dicom_series(tiny_ct((8, 32, 32)), tmp_path, transfer_syntax_uid=JPEG2000Lossless)
    data = paths[0].read_bytes()
    small, huge = struct.pack(">LL", 32, 32), struct.pack(">LL", 40000, 40000)
    assert small in data
    paths[0].write_bytes(data.replace(small, huge))
    assert refusal(tmp_path).code == "decode_failed"


def test_decoding_that_takes_too_long(tmp_path: Path) -> None:
    write_tiny(tmp_path, transfer_syntax_uid=RLELossless)
    with pytest.raises(UnreadableScan, match="limits of memory and time") as caught:
        read_ct(tmp_path, options(limits=replace(SMALL, decode_timeout_s=0.0)))
    assert caught.value.code == "decode_failed"


def test_decoding_that_takes_too_much_memory(tmp_path: Path) -> None:
    write_tiny(tmp_path, transfer_syntax_uid=RLELossless)
    with pytest.raises(UnreadableScan) as caught:
        read_ct(tmp_path, options(limits=replace(SMALL, decode_memory_bytes=1 << 20)))
    assert caught.value.code == "decode_failed"


def test_fragments_that_lie(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path, transfer_syntax_uid=RLELossless)
    data = paths[0].read_bytes()
    start = data.index(b"\xfe\xff\x00\xe0", data.index(b"\xe0\x7f\x10\x00OB"))
    paths[0].write_bytes(data[: start + 4] + struct.pack("<L", 0xFFFFFFF0) + data[start + 8 :])
    assert refusal(tmp_path).code == "truncated"


def test_element_longer_than_the_file(tmp_path: Path) -> None:
    error = refusal(spoiled(tmp_path, header_with(element(0x0008, 0x0019, b"UN", 0xFFFFFFF0))))
    assert (error.code, error.values["file"]) == ("truncated", 3)


def test_unknown_vr_in_the_file_meta(tmp_path: Path) -> None:
    """GDCM allocates 4 GB for this one."""
    paths = spoiled(tmp_path, lambda data: data[:132] + element(2, 0, b"ZZ", 0xFFF0) + data[144:])
    assert refusal(paths).code in ("truncated", "damaged_header", "transfer_syntax", "unsupported_series")


def test_thousands_of_nested_sequences(tmp_path: Path) -> None:
    deep = b"".join(
        element(0x0009, 0x1001, b"SQ", 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        for _ in range(5000)
    )
    error = refusal(spoiled(tmp_path, header_with(deep)))
    assert (error.code, error.values["file"]) == ("damaged_header", 3)


def test_more_elements_than_are_read(tmp_path: Path) -> None:
    """8 bytes of file could become 700 bytes of memory each."""
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 30_000 + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    paths = spoiled(tmp_path, header_with(element(0x0009, 0x1001, b"SQ", 0xFFFFFFFF) + items))
    with pytest.raises(UnreadableScan) as caught:
        read_ct(paths, options(limits=replace(SMALL, max_header_reads=10_000, header_reads_per_file=500)))
    assert caught.value.code == "header_too_large"


def test_long_header_is_read(tmp_path: Path) -> None:
    """More than the first window of the file: 5 000 private elements and a blob."""
    blob = element(0x0009, 0x1002, b"OB", 300_000, bytes(300_000))
    many = b"".join(element(0x0009, 0x2000 + n, b"SH", 30, b"x" * 30) for n in range(5000))
    volume, _ = read_ct(spoiled(tmp_path, header_with(blob + many)), options())
    assert (volume.hu == tiny_ct().hu).all()


@pytest.mark.parametrize("vr", [b"OB", b"SQ"])
def test_header_read_in_parts_is_read_whole(tmp_path: Path, vr: bytes) -> None:
    """Wherever the first part of a long header ends: between elements, within one, within a sequence."""
    path = write_tiny(tmp_path)[3]
    good = path.read_bytes()
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 3008) + element(0x0009, 0x1003, b"LO", 3000, b"x" * 3000)
    for size in range(32_768 - 1500, 32_768, 46 if vr == b"OB" else 250):
        if vr == b"OB":
            inserted = element(0x0009, 0x1002, b"OB", size, bytes(size))
        else:
            end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
            inserted = element(0x0009, 0x1002, b"SQ", 0xFFFFFFFF) + item * (size // len(item)) + end
        data = header_with(inserted)(good)
        path.write_bytes(data)
        file = ScanFile(0, "x", path, 0, len(data))
        (header,) = read_slice_headers(file, tmp_path, SMALL, ReadBudget(100_000))
        assert header.series_instance_uid is not None
        assert header.pixels is not None


def test_enhanced_header_of_many_frames(tmp_path: Path) -> None:
    scan = tiny_ct((200, 4, 4))
    (path,) = write_dicom_series(scan, tmp_path, enhanced=True)
    assert path.stat().st_size > 32_768
    assert (read_ct(path, options())[0].hu == scan.hu).all()


def test_large_object_that_is_no_image(tmp_path: Path) -> None:
    """A report with a long attachment lies beside the images, longer than any header."""

    def attach(dataset: Dataset, z: int) -> None:
        if z == 0:
            dataset.Modality, dataset.SeriesInstanceUID = "DOC", "1.2.3"
            dataset.EncapsulatedDocument = bytes(300_000)
            del dataset.PixelData

    paths = write_tiny(tmp_path, attach)
    volume, report = read_ct(paths, options(limits=replace(SMALL, max_header_bytes=200_000)))
    assert volume.hu.shape[0] == 7
    assert report.rejected[0].summary.modality == "DOC"


def test_header_over_the_limit(tmp_path: Path) -> None:
    paths = spoiled(tmp_path, header_with(element(0x0009, 0x1002, b"OB", 400_000, bytes(400_000))))
    with pytest.raises(UnreadableScan) as caught:
        read_ct(paths, options(limits=replace(SMALL, max_header_bytes=200_000)))
    assert caught.value.code == "header_too_large"


def test_uid_that_is_a_path(tmp_path: Path) -> None:
    paths = spoiled(tmp_path, lambda data: data)
    data = paths[0].read_bytes()
    at = data.index(b"\x08\x00\x18\x00UI")
    (length,) = _US.unpack(data[at + 6 : at + 8])
    evil = b"../../../etc/passwd".ljust(length, b"\0")
    paths[0].write_bytes(data[: at + 8] + evil + data[at + 8 + length :])
    error = refusal(tmp_path)
    assert error.code == "invalid_uid"
    assert "passwd" not in f"{error.message} {error.values}"


def test_executable_in_the_preamble_is_harmless(tmp_path: Path) -> None:
    volume, _ = read_ct(spoiled(tmp_path, lambda data: b"MZ" + data[2:]), options())
    assert (volume.hu == tiny_ct().hu).all()


def test_frames_and_functional_groups_disagree(tmp_path: Path) -> None:
    def drop_one(dataset: Dataset, _: int) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[-1]

    assert refusal(write_tiny(tmp_path, drop_one, enhanced=True)).code == "damaged_header"


def test_too_many_files_and_bytes(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    for limit, code in ({"max_files": 7}, "too_many_files"), ({"max_total_bytes": 5000}, "too_large"):
        with pytest.raises(UploadTooLarge) as caught:
            read_ct(tmp_path, options(limits=replace(SMALL, **limit)))
        assert caught.value.code == code


def test_too_many_voxels(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    with pytest.raises(UploadTooLarge) as caught:
        read_ct(tmp_path, options(limits=replace(SMALL, max_voxels=8 * 12 * 10 - 1)))
    assert (caught.value.code, caught.value.values["voxels"]) == ("too_many_voxels", math.prod((8, 12, 10)))


def test_file_meta_alone(tmp_path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = RLELossless
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.save_as(tmp_path / "x", enforce_file_format=False, implicit_vr=False, little_endian=True)
    refusal(tmp_path)
