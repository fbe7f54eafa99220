"""WADO-RS of a whole series to the disk: a scan does not fit in memory."""

from __future__ import annotations

from pathlib import Path

from python_multipart.multipart import parse_options_header

from app.imaging.errors import LungNoduleError
from app.imaging.inputs import InputFile
from app.multipart import RelatedWriter, UploadLimits
from app.pacs.config import WebTarget
from app.pacs.errors import PacsTroubleError
from app.pacs.web_session import WebSession, web_trouble_told

_PART = "application/dicom"
_CHUNK = 1 << 20
_MOST_FILES = 20_000


def fetch_series(target: WebTarget, study_uid: str, series_uid: str, folder: Path, max_bytes: int) -> list[InputFile]:
    """Every instance of a series as a file, in the transfer syntax that it is stored in.

    Parameters
    ----------
    folder
        Empty; gets the files.
    max_bytes
        Of the whole answer.

    Raises
    ------
    PacsTroubleError, AnswerTooLarge
        No answer, or none that makes sense; ``pacs_http_404`` where there is no such series.
    """
    url = f"{target.url.rstrip('/')}/studies/{study_uid}/series/{series_uid}"
    body = folder.with_name(f"{folder.name}.body")
    try:
        opened = WebSession(target.login, target.timeout_s, target.max_answer_bytes, allow_private=target.allow_private)
        with web_trouble_told(), opened as session:
            answer = session.fetch(url, f'multipart/related; type="{_PART}"; transfer-syntax=*', body, max_bytes)
        if answer.status_code != 200:
            code = f"pacs_http_{answer.status_code}"
            raise PacsTroubleError(f"The PACS answers {answer.status_code}.", code=code)
        return _parts(body, answer.headers.get("content-type", ""), folder, max_bytes)
    finally:
        body.unlink(missing_ok=True)


def _parts(body: Path, content_type: str, folder: Path, max_bytes: int) -> list[InputFile]:
    media_type, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if media_type != b"multipart/related" or not boundary:
        raise PacsTroubleError("The PACS answers something else than multipart/related.", code="pacs_answer_invalid")
    writer = RelatedWriter(boundary, folder, UploadLimits(max_bytes, _MOST_FILES, 0.0, 0.0, 0.0), _PART)
    try:
        with body.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                writer.feed([piece])
        writer.finish()
    except LungNoduleError as error:
        raise PacsTroubleError(
            f"The PACS sends damaged multipart: {error.message}", code="pacs_answer_invalid"
        ) from None
    finally:
        writer.close()
    return writer.upload.files
