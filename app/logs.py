"""JSON logs on standard output that hold no patient data.

Libraries quote what they read: pydicom writes tag values into warnings and exceptions. So a warning of theirs keeps
its place and category and loses its text, and an exception keeps its types and frames and loses its messages.
Messages of our own errors are kept: by contract they name attributes and numbers (`app.imaging.errors`).
"""

from __future__ import annotations

import logging
import logging.config
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

import structlog

from app.imaging.errors import LungNoduleError

_QUOTING_LOGGERS = (
    *("pydicom", "pynetdicom", "dicomweb_client", "highdicom", "py.warnings", "pylibjpeg", "openjpeg", "gdcm"),
    *("SimpleITK", "python_multipart", "asyncio", "concurrent", "dbos", "sqlalchemy", "alembic", "urllib3"),
    "opentelemetry",
)
"""Loggers of libraries that may put parts of a file or a request into their text, or the text of an exception."""

_WITHHELD = "message withheld: it may quote the file"


def configure_logs(level: str = "info", stream: IO[str] | None = None) -> None:
    """Send structlog and the standard library's logging to one stream as JSON lines.

    Process-wide, so the command that starts the service calls it, not the app factory.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        withhold_quoted_text,
        exception_without_messages,
    ]
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    # A line that cannot be written would be printed with its arguments.
    logging.raiseExceptions = False
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Its lines carry query strings and client addresses; the HTTP edge writes its own.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def tell_uncaught() -> None:
    """Log what nobody catches, in a thread or in a finaliser too: Python would print it with its text.

    Process-wide; for commands that run for long. After `configure_logs`.
    """

    def tell(kind: type[BaseException], error: BaseException | None) -> None:
        failure = described(error) if error is not None else [{"type": kind.__name__}]
        structlog.get_logger(__name__).critical("uncaught", failure=failure)

    def of_process(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, None)
        else:
            tell(kind, error)

    sys.excepthook = of_process
    threading.excepthook = lambda uncaught: tell(uncaught.exc_type, uncaught.exc_value)
    sys.unraisablehook = lambda uncaught: tell(uncaught.exc_type, uncaught.exc_value)


def withhold_quoted_text(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Processor: drop the text of loggers that quote what they read."""
    name = str(event.get("logger", ""))
    if name.split(".", maxsplit=1)[0] in _QUOTING_LOGGERS or name in _QUOTING_LOGGERS:
        return event | {"event": _WITHHELD, "category": _warning_category(str(event.get("event", "")))}
    return event


def exception_without_messages(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Processor: replace ``exc_info`` by exception types and frames."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    elif isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if isinstance(info, tuple) and info[1] is not None:
        event["exception"] = described(info[1])
    return event


def described(error: BaseException) -> list[dict[str, Any]]:
    """Types and frames of an exception and of what led to it; messages only of our own errors."""
    return [_one_described(link) for link in _chain(error)]


def _one_described(error: BaseException) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(error).__name__, "frames": _frames(error.__traceback__)}
    if isinstance(error, LungNoduleError):
        described |= {"code": error.code, "message": error.message}
    return described


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _frames(trace: TracebackType | None) -> list[str]:
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def _warning_category(text: str) -> str | None:
    """`UserWarning` of "file.py:12: UserWarning: ...", the form in which warnings are logged."""
    for word in text.split():
        if word.endswith("Warning:"):
            return word.rstrip(":")
    return None
