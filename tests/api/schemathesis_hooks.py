"""Loaded by schemathesis: how to write the one kind of body that it does not know."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("multipart/related")
def related(_context: Any, value: Any) -> bytes:
    """One part of application/dicom, whose content is what was generated."""
    data = getattr(value, "data", None)
    content = data if isinstance(data, bytes) else value if isinstance(value, bytes) else str(value).encode()
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--\r\n"
