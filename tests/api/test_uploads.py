"""What reaches the disk, and where reading stops."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.disk_faults import StorageFull
from app.imaging.errors import LungNoduleError, UploadTooLarge
from app.multipart import MalformedUpload, MultipartWriter, Upload, UploadLimits
from app.uploads import NotMultipart, UploadTooSlow, receive_upload

LIMITS = UploadLimits(request_bytes=1 << 20, files=100, seconds=30, grace_s=30, bytes_per_s=1)
BOUNDARY = "xYzZy"
HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, content: bytes, filename: str | None = None, extra: bytes = b"") -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n'.encode()
    return head + extra + b"\r\n" + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def _chunks(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def receive(*pieces: bytes, folder: Path, limits: UploadLimits = LIMITS, headers: dict[str, str] = HEADERS) -> Upload:
    return asyncio.run(receive_upload(_chunks(pieces), headers, folder, limits))


# Pieces that look like the boundary are where a streaming parser goes wrong.
content = (
    st.lists(
        st.one_of(
            st.binary(max_size=40), st.sampled_from([b"\r\n", b"--", b"\r\n--xYz", b"\r\n--xYzZ", b"\r", b"xYzZy"])
        ),
        max_size=8,
    )
    .map(b"".join)
    .filter(lambda data: f"\r\n--{BOUNDARY}".encode() not in b"\r\n" + data)
)


@given(files=st.lists(content, min_size=1, max_size=4), value=st.text(max_size=20), cuts=st.lists(st.integers(1, 60)))
def test_files_arrive_byte_for_byte_however_the_body_is_cut(files: list[bytes], value: str, cuts: list[int]) -> None:
    whole = body(*(part("files", data, f"{n}.dcm") for n, data in enumerate(files)), part("model", value.encode()))
    pieces, start = [], 0
    for length in cuts:
        pieces.append(whole[start : start + length])
        start += length
    pieces.append(whole[start:])
    with TemporaryDirectory() as folder:
        writer = MultipartWriter(BOUNDARY.encode(), Path(folder), LIMITS)
        writer.feed(pieces)
        writer.finish()
        upload = writer.upload
        assert [file.path.read_bytes() for file in upload.files] == files
        assert [file.name for file in upload.files] == [f"{n}.dcm" for n in range(len(files))]
    if f"\r\n--{BOUNDARY}" not in value:
        assert upload.fields == [("model", value)]


def test_batches_lose_nothing(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    whole = body(part("files", data, "a"))
    upload = receive(*(whole[n : n + 9973] for n in range(0, len(whole), 9973)), folder=tmp_path)
    assert upload.files[0].path.read_bytes() == data
    assert upload.received_bytes == len(whole)


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "C:\\escaped", "a/b/escaped", "", "é.dcm"])
def test_names_of_the_sender_never_become_paths(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    upload = receive(body(part("files", b"x", name)), folder=folder)
    assert [file.path for file in upload.files] == [folder / "000000"]
    assert list(tmp_path.rglob("*escaped*")) == []


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("", ""),
        ('; filename=""', ""),
        ('; filename="a;b.mhd"', "a;b.mhd"),
        ("; filename=plain.mhd", "plain.mhd"),
        ("; filename*=utf-8''Th%C3%B6rax.mhd", "Thörax.mhd"),
        ("; filename=\"a.mhd\"; filename*=UTF-8''b.mhd", "a.mhd"),
    ],
)
def test_every_way_to_name_a_file(tmp_path: Path, parameters: str, name: str) -> None:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"{parameters}\r\n\r\n'.encode()
    upload = receive(body(head + b"scan\r\n"), folder=tmp_path)
    assert [file.name for file in upload.files] == [name]
    assert upload.files[0].path.read_bytes() == b"scan"


LONG_HEADER = b"X-Long: " + b"y" * 5000 + b"\r\n"
MANY_HEADERS = b"".join(f"X-{n}: y\r\n".encode() for n in range(20))
REFUSED = {
    "other media type": ({"content-type": "application/json"}, b"{}", NotMultipart, "unsupported_media_type"),
    "no media type": ({}, b"", NotMultipart, "unsupported_media_type"),
    "no boundary": ({"content-type": "multipart/form-data"}, b"", MalformedUpload, "boundary_missing"),
    "endless boundary": (
        {"content-type": f"multipart/form-data; boundary={'b' * 300}"},
        b"",
        MalformedUpload,
        "boundary_invalid",
    ),
    "declared too large": ({"content-length": str(1 << 30), **HEADERS}, b"", UploadTooLarge, "request_too_large"),
    "found too large": (HEADERS, part("files", b"z" * (1 << 20), "a"), UploadTooLarge, "request_too_large"),
    "too many files": (HEADERS, body(*[part("files", b"", "a")] * 101), UploadTooLarge, "too_many_files"),
    "too many fields": (HEADERS, body(*[part("f", b"")] * 33), MalformedUpload, "too_many_fields"),
    "long field": (HEADERS, body(part("model", b"m" * 1025)), MalformedUpload, "malformed_upload"),
    "field that is no text": (HEADERS, body(part("model", b"\xff\xfe")), MalformedUpload, "malformed_upload"),
    "long header": (HEADERS, body(part("files", b"", "a", LONG_HEADER)), MalformedUpload, "malformed_upload"),
    "many headers": (HEADERS, body(part("files", b"", "a", MANY_HEADERS)), MalformedUpload, "malformed_upload"),
    "encoded part": (
        HEADERS,
        body(part("files", b"", "a", b"Content-Transfer-Encoding: base64\r\n")),
        MalformedUpload,
        "malformed_upload",
    ),
    "file under another name": (HEADERS, body(part("scan", b"", "a")), MalformedUpload, "malformed_upload"),
    "part without a name": (
        HEADERS,
        f"--{BOUNDARY}\r\nX: y\r\n\r\n\r\n--{BOUNDARY}--\r\n".encode(),
        MalformedUpload,
        "malformed_upload",
    ),
    "cut off": (HEADERS, part("files", b"abc", "a"), MalformedUpload, "upload_truncated"),
    "nothing": (HEADERS, b"", MalformedUpload, "upload_truncated"),
    "no multipart at all": (HEADERS, b"PK\3\4 a zip", MalformedUpload, "malformed_upload"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path: Path, name: str) -> None:
    headers, sent, error, code = REFUSED[name]
    with pytest.raises(error) as caught:
        receive(sent, folder=tmp_path, headers=headers)
    assert caught.value.code == code


def test_reading_stops_at_the_limit_and_not_after_the_body(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield part("files", b"", "a")[:-2]
        while True:
            sent += 1 << 16
            yield b"z" * (1 << 16)

    with pytest.raises(UploadTooLarge):
        asyncio.run(receive_upload(endless(), HEADERS, tmp_path, LIMITS))
    assert sent <= 2 * LIMITS.request_bytes


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(replace(LIMITS, seconds=0.02, grace_s=1e6), id="deadline"),
        pytest.param(replace(LIMITS, seconds=1e6, grace_s=0.02, bytes_per_s=1e9), id="least rate"),
    ],
)
def test_a_sender_that_stalls_is_let_go(tmp_path: Path, limits: UploadLimits) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield part("files", b"abc", "a")
        await asyncio.Event().wait()

    with pytest.raises(UploadTooSlow) as caught:
        asyncio.run(asyncio.wait_for(receive_upload(stalls(), HEADERS, tmp_path, limits), timeout=20))
    assert caught.value.values["received_bytes"] == len(part("files", b"abc", "a"))


@pytest.mark.parametrize("end", [asyncio.Task.cancel, None], ids=["cancelled", "refused"])
def test_no_thread_writes_on_when_receiving_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[asyncio.Task[Upload]], object] | None
) -> None:
    """Whoever called removes the folder next."""
    started, go_on, written = threading.Event(), threading.Event(), threading.Event()
    feed = MultipartWriter.feed

    def slow_disk(writer: MultipartWriter, pieces: Iterable[bytes]) -> None:
        started.set()
        go_on.wait(timeout=20)
        feed(writer, pieces)
        written.set()

    async def breaks_off() -> AsyncIterator[bytes]:
        yield part("files", bytes(2 << 20), "a")
        if end is None:
            await asyncio.to_thread(started.wait, 20)
            raise UploadTooLarge("enough")
        await asyncio.Event().wait()

    async def receiving() -> bool:
        limits = replace(LIMITS, request_bytes=1 << 30)
        task = asyncio.create_task(receive_upload(breaks_off(), HEADERS, tmp_path, limits))
        await asyncio.to_thread(started.wait, 20)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        if end is not None:
            end(task)
        with pytest.raises(UploadTooLarge if end is None else asyncio.CancelledError):
            await task
        return written.is_set()

    monkeypatch.setattr(MultipartWriter, "feed", slow_disk)
    assert asyncio.run(receiving())


def test_a_fault_of_the_last_batch_is_told(tmp_path: Path) -> None:
    files = [part("files", b"", "a") for _ in range(101)]
    large = part("files", bytes(2 << 20), "a")
    with pytest.raises(UploadTooLarge) as caught:
        receive(large, *files, folder=tmp_path, limits=replace(LIMITS, request_bytes=1 << 30))
    assert caught.value.code == "too_many_files"


def test_a_full_disk_is_told_apart_from_a_fault(tmp_path: Path) -> None:
    async def disk_fills() -> AsyncIterator[bytes]:
        yield b""
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageFull):
        asyncio.run(receive_upload(disk_fills(), HEADERS, tmp_path, LIMITS))


def test_messages_repeat_nothing_that_was_sent(tmp_path: Path) -> None:
    secret = "Doe^John"
    for sent in (body(part(secret, b"", secret)), body(part(secret, b"\xff")), part("files", b"", secret)):
        with pytest.raises(LungNoduleError) as caught:
            receive(sent, folder=tmp_path)
        assert secret not in f"{caught.value} {caught.value.values}"
