"""A claim that lives as long as whoever made it: short, and renewed while the work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from app.imaging.errors import LungNoduleError
from app.logs import described

CLAIM_S = 15.0
"""What was claimed and not renewed for so long is free: its holder was killed, or has lost the database."""
_RENEWALS = 3
"""In the time of a claim: two may fail."""


@contextmanager
def held(renew: Callable[[], None], claim_s: float = CLAIM_S) -> Iterator[None]:
    """Renew a claim in a thread until the context ends."""
    ended = threading.Event()

    def keep_renewing() -> None:
        while not ended.wait(claim_s / _RENEWALS):
            try:
                renew()
            except LungNoduleError as error:
                structlog.get_logger(__name__).warning("claim not renewed", failure=described(error))

    thread = threading.Thread(target=keep_renewing, name="pacs-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
