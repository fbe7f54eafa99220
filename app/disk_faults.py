"""What the system says of a disk that takes nothing more, in our own words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from app.imaging.errors import LungNoduleError


class StorageFull(LungNoduleError):
    """The disk takes nothing more: no room (``storage_full``), or mounted read-only (``storage_read_only``)."""

    default_code = "storage_full"


@contextmanager
def full_disk_refused() -> Iterator[None]:
    """Turn the system's error into one that says what happened.

    Raises
    ------
    StorageFull
        The disk, or the quota on it, is full; or it cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk has no room for the scan. Try again later.") from error
        if error.errno == errno.EROFS:
            raise StorageFull(
                "The disk is mounted read-only. Tell whoever runs the service.", code="storage_read_only"
            ) from error
        raise
