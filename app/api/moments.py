"""Moments in a query: RFC 3339 as the description says, and nothing else that pydantic would take for one."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator


def _rfc_3339(value: object) -> object:
    """Pydantic would take a number for seconds since 1970, and a day for its midnight, wherever that is."""
    if isinstance(value, str) and not _DATE_TIME.fullmatch(value):
        raise ValueError("must be a date and time with its offset from UTC, as 2026-11-29T12:00:00Z (RFC 3339)")
    return value


_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
Moment = Annotated[datetime, BeforeValidator(_rfc_3339)]


def seconds_of(when: datetime | None) -> float | None:
    """Seconds since 1970; None for none."""
    return None if when is None else when.timestamp()
