"""Log lines are JSON and hold nothing of the patient, whoever writes them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from app.imaging.errors import UnreadableScan
from app.logs import configure_logs

SECRET = "Doe^John"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the configured logging writes; the process's own configuration comes back afterwards."""
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level, old = root.level, structlog.get_config()
    stream = io.StringIO()
    configure_logs("info", stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.configure(**old)


def parsed(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_ours(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("app.x").info("request", status=200)
        structlog.get_logger("app.x").debug("too fine")
    (line,) = parsed(lines)
    assert line["timestamp"].endswith("Z")  # type: ignore[attr-defined]
    assert (line["event"], line["level"], line["request_id"]) == ("request", "info", "r1")


def test_warnings_keep_their_kind_and_lose_their_text(lines: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(f"Invalid value for VR DA: {SECRET}", UserWarning, stacklevel=1)
    logging.captureWarnings(capture=False)
    (line,) = parsed(lines)
    assert line["category"] == "UserWarning"
    assert SECRET not in str(line)


@pytest.mark.parametrize("name", ["pydicom", "pydicom.dataset", "python_multipart.multipart"])
def test_libraries_that_quote_the_file_are_not_quoted(lines: io.StringIO, name: str) -> None:
    logging.getLogger(name).warning("value %r", SECRET, extra={"patient": SECRET})
    (line,) = parsed(lines)
    assert line["logger"] == name
    assert SECRET not in str(line)


def test_an_exception_keeps_its_types_and_frames_and_loses_its_text(lines: io.StringIO) -> None:
    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise KeyError(SECRET) from error
    except KeyError as error:
        structlog.get_logger("app").error("unhandled", exc_info=error)
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    for line in parsed(lines):
        assert [part["type"] for part in line["exception"]] == ["KeyError", "ValueError"]  # type: ignore[attr-defined]
        assert "test_logs.py" in str(line["exception"])
        assert SECRET not in str(line)


def test_errors_of_ours_speak(lines: io.StringIO) -> None:
    structlog.get_logger("app").error("refused", exc_info=UnreadableScan("Rows is 0.", code="rows_invalid"))
    (line,) = parsed(lines)
    assert line["exception"][0]["message"] == "Rows is 0."  # type: ignore[index]


def test_uvicorn_s_access_lines_are_off(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.access").info('127.0.0.1 - "GET /?name=%s HTTP/1.1" 200', SECRET)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert [line["event"] for line in parsed(lines)] == ["Started server process"]
