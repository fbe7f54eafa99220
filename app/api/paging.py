"""Pages of lists by time: a cursor is the time and the id of the last one shown."""

from __future__ import annotations

import base64
import binascii
import math

from app.imaging.errors import OptionError


def cursor_of(at: float, last_id: str) -> str:
    """What the link `next` holds."""
    return base64.urlsafe_b64encode(f"{at!r} {last_id}".encode()).decode()


def parse_cursor(cursor: str | None) -> tuple[float, str] | None:
    """What `cursor_of` made.

    Raises
    ------
    OptionError
        ``cursor_invalid``.
    """
    if cursor is None:
        return None
    try:
        told, _, last_id = base64.urlsafe_b64decode(cursor).decode().partition(" ")
        at = float(told)
    except (binascii.Error, ValueError):
        at, last_id = math.nan, ""
    if not math.isfinite(at) or not last_id.isalnum():
        raise OptionError("cursor is none that a link `next` has given.", code="cursor_invalid")
    return at, last_id
