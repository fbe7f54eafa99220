"""A multipart body goes to disk as it arrives, under names of our own, within limits that hold while it is read.

Nothing of the body is kept in memory beyond two batches: one is written while the next arrives. Names that the sender
gave its files stay in memory, for telling formats apart; they never become paths, log lines or messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

from python_multipart.multipart import parse_options_header

from app.disk_faults import full_disk_refused
from app.imaging.errors import LungNoduleError, UploadTooLarge
from app.multipart import FILES_FIELD, MalformedUpload, MultipartWriter, RelatedWriter, Upload, UploadLimits

_BATCH_BYTES = 1 << 20


class NotMultipart(LungNoduleError):
    """The body has another media type than multipart/form-data."""

    default_code = "unsupported_media_type"


class UploadTooSlow(LungNoduleError):
    """The body did not arrive in time, or came slower than the least rate."""

    default_code = "upload_too_slow"


async def receive_upload(
    body: AsyncIterable[bytes], headers: dict[str, str], folder: Path, limits: UploadLimits
) -> Upload:
    """Write the files of a multipart body into ``folder`` and return them with the text fields.

    Parameters
    ----------
    body
        The body in the chunks in which it arrives.
    headers
        Request headers by lower-case name; ``content-type`` and ``content-length`` are read.
    folder
        An empty folder that the caller removes, whatever happens.
    limits
        Checked while reading: the first byte beyond one ends it.

    Raises
    ------
    NotMultipart
        Another media type.
    MalformedUpload
        No boundary, damaged or truncated multipart, unusable part headers.
    UploadTooLarge
        ``request_too_large`` or ``too_many_files``.
    UploadTooSlow
        Deadline passed, or slower than the least rate.
    StorageFull
        The disk has no room, or cannot be written to.
    """
    media_type, parameters = parse_options_header(headers.get("content-type", ""))
    if media_type != b"multipart/form-data":
        raise NotMultipart(
            f"Send multipart/form-data with one or more parts named '{FILES_FIELD}'.",
            values={"expected": "multipart/form-data"},
        )
    return await _received(body, headers, MultipartWriter(_boundary(parameters), folder, limits), limits)


async def receive_related(
    body: AsyncIterable[bytes], headers: dict[str, str], folder: Path, limits: UploadLimits, part_type: str
) -> Upload:
    """As `receive_upload`, for multipart/related whose parts are all of the media type ``part_type``.

    Raises
    ------
    NotMultipart
        Another media type, or parts of another one by the parameter ``type``.
    MalformedUpload, UploadTooLarge, UploadTooSlow, StorageFull
        As `receive_upload`.
    """
    media_type, parameters = parse_options_header(headers.get("content-type", ""))
    told_type = parameters.get(b"type", b"").lower()
    if media_type != b"multipart/related" or told_type not in (b"", part_type.encode()):
        expected = f'multipart/related; type="{part_type}"'
        raise NotMultipart(f"Send {expected}.", values={"expected": expected})
    return await _received(body, headers, RelatedWriter(_boundary(parameters), folder, limits, part_type), limits)


async def _received(
    body: AsyncIterable[bytes], headers: dict[str, str], writer: MultipartWriter, limits: UploadLimits
) -> Upload:
    with full_disk_refused():  # closing writes too: what a file still holds in memory
        try:
            declared = headers.get("content-length", "")
            _check_size(int(declared) if declared.isdecimal() else 0, limits)
            await _write_while_receiving(_batches(body, limits), writer)
            writer.finish()
        finally:
            writer.close()
    return writer.upload


def _boundary(parameters: dict[bytes, bytes]) -> bytes:
    boundary = parameters.get(b"boundary", b"")
    if not boundary:
        raise MalformedUpload("Content-Type names no multipart boundary.", code="boundary_missing")
    return boundary


def _check_size(size: int, limits: UploadLimits) -> None:
    if size > limits.request_bytes:
        raise UploadTooLarge(
            f"The request body is over the limit of {limits.request_bytes} bytes.",
            code="request_too_large",
            values={"limit_bytes": limits.request_bytes},
        )


async def _write_while_receiving(batches: AsyncIterator[list[bytes]], writer: MultipartWriter) -> None:
    """Write each batch in a thread while the next one arrives; when this ends, however it does, no thread writes."""
    loop = asyncio.get_running_loop()
    writing: asyncio.Future[None] | None = None
    try:
        async for batch in batches:
            if writing is not None:
                await asyncio.shield(writing)
            writing = loop.run_in_executor(None, writer.feed, batch)
        if writing is not None:
            await asyncio.shield(writing)
    finally:
        if writing is not None:
            await asyncio.wait([writing])
            # Whatever ended the receiving is what is told; asyncio would report a second fault as never looked at.
            writing.exception()


async def _batches(body: AsyncIterable[bytes], limits: UploadLimits) -> AsyncIterator[list[bytes]]:
    """A MiB of chunks at a time, so that neither the hop to a thread nor the alarm clock costs much beside the write.

    Only the time spent waiting for the sender counts against it; our own writing, which is done between two batches,
    does not.
    """
    clock = asyncio.get_running_loop().time
    chunks = aiter(body)
    waited_s, received = 0.0, 0
    ended = False

    def allowed_s() -> float:
        return min(limits.seconds, limits.grace_s + received / limits.bytes_per_s)

    while not ended:
        batch: list[bytes] = []
        size, asked = 0, clock()
        try:
            async with asyncio.timeout_at(asked - waited_s + allowed_s()) as alarm:
                while size < _BATCH_BYTES:
                    chunk = await anext(chunks, None)
                    if chunk is None:
                        ended = True
                        break
                    batch.append(chunk)
                    size += len(chunk)
                    received += len(chunk)
                    _check_size(received, limits)
                    due = asked - waited_s + allowed_s()
                    if due > (alarm.when() or 0.0):  # setting the alarm anew costs more than all the rest
                        alarm.reschedule(due)
        except TimeoutError:
            raise _too_slow(received, limits) from None
        waited_s += clock() - asked
        if batch:
            yield batch


def _too_slow(received: int, limits: UploadLimits) -> UploadTooSlow:
    return UploadTooSlow(
        f"The body must arrive within {limits.seconds:g} s and, after {limits.grace_s:g} s, at "
        f"{limits.bytes_per_s:g} bytes/s or more.",
        values={
            "limit_s": limits.seconds,
            "grace_s": limits.grace_s,
            "least_bytes_per_s": limits.bytes_per_s,
            "received_bytes": received,
        },
    )
