"""Writes the parts of a multipart/form-data body to disk while it arrives. Blocking; `app.uploads` drives it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.imaging.errors import LungNoduleError, UploadTooLarge
from app.imaging.inputs import InputFile

FILES_FIELD = "files"


class MalformedUpload(LungNoduleError):
    """The body is not the multipart/form-data that its headers promise."""

    default_code = "malformed_upload"


@dataclass(frozen=True)
class UploadLimits:
    """What one request may send, and how slowly."""

    request_bytes: int
    """The whole body, part headers and boundaries included."""
    files: int
    seconds: float
    """Time to wait for the whole body."""
    grace_s: float
    """Time before ``bytes_per_s`` counts."""
    bytes_per_s: float
    """Least average rate after the grace."""
    fields: int = 32
    field_bytes: int = 1024
    part_headers: int = 8
    part_header_bytes: int = 4096


@dataclass
class Upload:
    """What one request brought."""

    files: list[InputFile] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)
    received_bytes: int = 0


class MultipartWriter:
    """File parts go to disk, text parts to a list.

    Parameters
    ----------
    boundary
        From the Content-Type.
    folder
        An empty folder for the files.
    limits
        On files, fields and part headers; those on bytes and time are the caller's to hold.
    """

    def __init__(self, boundary: bytes, folder: Path, limits: UploadLimits) -> None:
        self.upload = Upload()
        self._folder = folder
        self._limits = limits
        self._parts = 0
        self._ended = False
        self._headers: dict[str, str] = {}
        self._header_name = b""
        self._header_value = b""
        self._field_name = ""
        self._field_value = b""
        self._file: IO[bytes] | None = None
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
                max_header_count=limits.part_headers,
                max_header_size=limits.part_header_bytes,
            )
        except FormParserError as error:
            raise MalformedUpload("The multipart boundary is too long.", code="boundary_invalid") from error

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Take in what comes next of the body.

        Raises
        ------
        MalformedUpload
            Damaged, or beyond a limit on fields or headers.
        UploadTooLarge
            ``too_many_files``.
        """
        try:
            for piece in pieces:
                self.upload.received_bytes += len(piece)
                self._parser.write(piece)
        except FormParserError as error:
            # The parser's own message may quote the body.
            raise MalformedUpload(
                f"The multipart body is damaged in part {self._parts} (counted from 1).", values={"part": self._parts}
            ) from error

    def finish(self) -> None:
        """The body is complete.

        Raises
        ------
        MalformedUpload
            ``upload_truncated`` when its closing boundary is missing.
        """
        if not self._ended:
            raise MalformedUpload(
                f"The multipart body ends in part {self._parts} (counted from 1) without its closing boundary.",
                code="upload_truncated",
                values={"part": self._parts},
            )

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._headers = {}
        self._field_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower().decode("latin-1")] = self._header_value.decode("latin-1")
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        header = self._headers.get("content-disposition", "")
        disposition, parameters = parse_options_header(header)
        if disposition != b"form-data" or b"name" not in parameters:
            raise self._fault("has no Content-Disposition of form-data with a name")
        if self._headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
            raise self._fault("has a Content-Transfer-Encoding; send the bytes as they are")
        self._field_name = parameters[b"name"].decode("utf-8", "replace")
        name = parameters.get(b"filename", b"").decode("utf-8", "replace") or _extended_file_name(header)
        # Some clients leave the file name out; whatever is called "files" is one.
        if name or b"filename" in parameters or self._field_name == FILES_FIELD:
            self._open_file(name)
        elif len(self.upload.fields) >= self._limits.fields:
            raise MalformedUpload(
                f"More than {self._limits.fields} form fields.",
                code="too_many_fields",
                values={"limit": self._limits.fields},
            )

    def _open_file(self, name: str) -> None:
        if self._field_name != FILES_FIELD:
            raise self._fault(f"is a file under another name than '{FILES_FIELD}'")
        if len(self.upload.files) >= self._limits.files:
            raise UploadTooLarge(
                f"More than {self._limits.files} files; send them as one zip.",
                code="too_many_files",
                values={"limit": self._limits.files},
            )
        path = self._folder / f"{len(self.upload.files):06d}"
        self._file = path.open("xb")
        self.upload.files.append(InputFile(path, name))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
            return
        if len(self._field_value) + end - start > self._limits.field_bytes:
            raise self._fault(f"is a form field of more than {self._limits.field_bytes} bytes")
        self._field_value += data[start:end]

    def _on_part_end(self) -> None:
        if self._file is not None:
            self.close()
            return
        try:
            self.upload.fields.append((self._field_name, self._field_value.decode("utf-8")))
        except UnicodeDecodeError:
            raise self._fault("is a form field that is not UTF-8") from None

    def _on_end(self) -> None:
        self._ended = True

    def _fault(self, what: str) -> MalformedUpload:
        return MalformedUpload(f"Part {self._parts} (counted from 1) {what}.", values={"part": self._parts})


class RelatedWriter(MultipartWriter):
    """For multipart/related (RFC 2387), as STOW-RS sends it: every part is a file of one media type.

    Parameters
    ----------
    boundary, folder, limits
        As for `MultipartWriter`.
    media_type
        Of every part.
    """

    def __init__(self, boundary: bytes, folder: Path, limits: UploadLimits, media_type: str) -> None:
        super().__init__(boundary, folder, limits)
        self._media_type = media_type.encode()

    def _on_headers_finished(self) -> None:
        media_type, _ = parse_options_header(self._headers.get("content-type", ""))
        if media_type != self._media_type:
            raise self._fault(f"has another Content-Type than {self._media_type.decode()}")
        if self._headers.get("content-transfer-encoding", "binary").lower() != "binary":
            raise self._fault("has a Content-Transfer-Encoding; send the bytes as they are")
        self._field_name = FILES_FIELD
        self._open_file("")


def _extended_file_name(header: str) -> str:
    """``filename*=utf-8''...`` (RFC 5987): not allowed in forms (RFC 7578, 4.2), yet sent for names beyond ASCII."""
    found = re.search(r"filename\*\s*=\s*\"?([\w-]+)'[^']*'([^;\"]*)", header, re.IGNORECASE)
    return unquote(found[2], errors="replace") if found else ""
