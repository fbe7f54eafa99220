"""Zip archives: what they claim is checked before anything is inflated, and no member is written under its name."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.archive import Unpacked, is_zip, unpack
from app.imaging.errors import ScanError, UnreadableScan, UploadTooLarge
from app.imaging.inputs import ScanFile
from app.imaging.read_options import ReadLimits
from app.imaging.reading import read_ct
from tests.hostile.archive_files import end_record, entry, local
from tests.imaging.dicom_worlds import options, tiny_ct, write_tiny

LIMITS = ReadLimits(max_files=20, max_total_bytes=1 << 20, min_ratio_bytes=1 << 16)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def unpacked(tmp_path: Path) -> Iterator[Callable[[bytes], Unpacked]]:
    """Unpack bytes as an archive; afterwards no file lies anywhere but in the spool."""
    scratch = tmp_path / "outer" / "scratch"
    scratch.mkdir(parents=True)
    path = tmp_path / "upload"

    def run(data: bytes) -> Unpacked:
        path.write_bytes(data)
        return unpack(ScanFile(0, "a.zip", path, 0, len(data)), scratch, LIMITS, first_index=0)

    yield run
    assert {found for found in tmp_path.rglob("*") if found.is_file()} <= {path, scratch / "archive-0"}


def contents(result: Unpacked) -> list[bytes]:
    return [file.read(0, file.size) for file in result.files]


def refusal(unpacked: Callable[[bytes], Unpacked], data: bytes) -> ScanError:
    with pytest.raises(ScanError) as caught:
        unpacked(data)
    return caught.value


@given(st.lists(st.binary(min_size=1, max_size=2000), min_size=1, max_size=8), st.data())
def test_members_come_back(tmp_path_factory: pytest.TempPathFactory, members: list[bytes], data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, content in enumerate(members):
            method = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            archive.writestr(f"folder {i}/{i}", content, method)
    folder = tmp_path_factory.mktemp("zip")
    (folder / "x").write_bytes(buffer.getvalue())
    result = unpack(ScanFile(7, "x", folder / "x", 0, len(buffer.getvalue())), folder, LIMITS, first_index=3)
    assert contents(result) == members
    assert [file.index for file in result.files] == list(range(3, 3 + len(members)))


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "C:\\evil", "..\\evil", "n" * 300, "a\x01b", "con", "👾", "dir/../../evil"]
)
def test_names_are_data_not_paths(unpacked: Callable[[bytes], Unpacked], name: str) -> None:
    result = unpacked(zipped({name: b"content"}))
    assert contents(result) == [b"content"]
    assert "/" not in result.files[0].name
    assert "\\" not in result.files[0].name


def test_a_member_without_a_name_is_one(unpacked: Callable[[bytes], Unpacked]) -> None:
    """Found by fuzzing: `ZipInfo.is_dir` raises IndexError."""
    stream = zlib.compress(b"content", wbits=-zlib.MAX_WBITS)
    sizes = (zlib.crc32(b"content"), len(stream), 7)
    member, directory = local(b"", *sizes) + stream, entry(b"", *sizes, 0)
    data = member + directory + end_record(1, len(directory), len(member))
    assert contents(unpacked(data)) == [b"content"]


def test_links_are_not_followed(unpacked: Callable[[bytes], Unpacked]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    result = unpacked(buffer.getvalue())
    assert (result.files, [notice.code for notice in result.ignored]) == ((), ["symlink"])


def test_bomb_by_ratio(unpacked: Callable[[bytes], Unpacked]) -> None:
    error = refusal(unpacked, zipped({"zeros": bytes(900_000)}))
    assert isinstance(error, UploadTooLarge)
    assert error.code == "compression_ratio"


def test_bomb_by_total(unpacked: Callable[[bytes], Unpacked]) -> None:
    error = refusal(unpacked, zipped({str(i): bytes(300_000) for i in range(4)}))
    assert isinstance(error, UploadTooLarge)
    assert (error.code, error.values["bytes"]) == ("too_large", 1_200_000)


def test_member_that_inflates_to_more_than_it_says(unpacked: Callable[[bytes], Unpacked]) -> None:
    data = zipped({"a": b"0123456789" * 100}).replace(struct.pack("<L", 1000), struct.pack("<L", 10))
    assert refusal(unpacked, data).code == "zip_damaged"


def test_too_many_members(unpacked: Callable[[bytes], Unpacked]) -> None:
    error = refusal(unpacked, zipped({str(i): b"x" for i in range(21)}))
    assert (error.code, error.values["files"]) == ("too_many_files", 21)


@pytest.mark.parametrize("zip64", [False, True])
def test_directory_too_long_to_be_parsed(unpacked: Callable[[bytes], Unpacked], zip64: bool) -> None:
    """`zipfile` would make an object of each of its entries, whatever their number is said to be."""
    size = 100_000_000
    if zip64:
        end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, 0)
        end += struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
        end += struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFF, 0, 0)
    else:
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    error = refusal(unpacked, b"PK\x03\x04" + bytes(100) + end)
    assert (error.code, error.values["directory_bytes"]) == ("too_many_files", size)


def test_members_that_share_bytes(unpacked: Callable[[bytes], Unpacked]) -> None:
    """Many directory entries that point at one compressed kernel: python's zipfile before 3.11.8 reads them happily."""
    data = zipped({"a": bytes(50_000)})
    directory, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[directory:end]
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 4, 4, 4 * len(entry), directory, 0)
    assert refusal(unpacked, data[:directory] + 4 * entry + tail).code == "zip_overlap"


def test_encrypted(unpacked: Callable[[bytes], Unpacked]) -> None:
    data = bytearray(zipped({"a": b"x"}, zipfile.ZIP_STORED))
    data[6] |= 1
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    assert refusal(unpacked, bytes(data)).code == "zip_encrypted"


def test_other_methods(unpacked: Callable[[bytes], Unpacked]) -> None:
    assert refusal(unpacked, zipped({"a": b"x" * 100}, zipfile.ZIP_LZMA)).code == "zip_method"


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damage_is_told_or_harmless(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int) -> None:
    data = zipped({"a": bytes(range(256)), "b": b"text" * 30})
    data = data[:at] + junk + data[at + len(junk) :]
    folder = tmp_path_factory.mktemp("zip")
    (folder / "x").write_bytes(data)
    try:
        result = unpack(ScanFile(0, "x", folder / "x", 0, len(data)), folder, LIMITS, first_index=0)
    except ScanError:
        return
    assert sum(file.size for file in result.files) <= LIMITS.max_total_bytes


@pytest.mark.parametrize("kept", [30, 200, -10])
def test_truncated(unpacked: Callable[[bytes], Unpacked], kept: int) -> None:
    error = refusal(unpacked, zipped({"a": bytes(range(256)) * 8})[:kept])
    assert isinstance(error, UnreadableScan)
    assert error.code == "zip_damaged"


def test_wrong_crc(unpacked: Callable[[bytes], Unpacked]) -> None:
    data = zipped({"a": b"0123456789"}, zipfile.ZIP_STORED).replace(b"0123456789", b"0123456780")
    assert refusal(unpacked, data).code == "zip_damaged"


def test_nested_archives_are_not_opened(tmp_path: Path) -> None:
    inner = zipped({path.name: path.read_bytes() for path in write_tiny(tmp_path / "series")})
    (tmp_path / "outer.zip").write_bytes(zipped({"inner.zip": inner}))
    with pytest.raises(UnreadableScan) as caught:
        read_ct(tmp_path / "outer.zip", options())
    assert caught.value.code == "zip_nested"


def test_several_archives_make_one_upload(tmp_path: Path) -> None:
    paths = write_tiny(tmp_path / "series")
    for half, chosen in enumerate((paths[:4], paths[4:])):
        (tmp_path / f"{half}.zip").write_bytes(zipped({path.name: path.read_bytes() for path in chosen}))
    volume, report = read_ct([tmp_path / "0.zip", tmp_path / "1.zip"], options())
    assert (volume.hu == tiny_ct().hu).all()
    assert report.files_received == 8


def test_many_archives_are_no_way_around_the_limits(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.zip").write_bytes(zipped({"a": b"0123456789" * 10}))
    with pytest.raises(UploadTooLarge):
        read_ct(tmp_path, options(limits=ReadLimits(max_total_bytes=250)))


def test_told_from_other_files() -> None:
    assert is_zip(zipped({}))
    assert not is_zip(b"PK")
