"""How the C library hands out memory in a process that lives for months and serves from many threads."""

from __future__ import annotations

import ctypes
import os

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""
_ARENAS = 2


def share_arenas() -> None:
    """Let all threads of this process allocate from two arenas, which glibc else multiplies to eight for each core.

    Each arena keeps the most that ever lay in it, in pieces, so that a service whose threads take uploads of all sizes
    grows for as long as it runs, though what it uses stays the same: by 123 MiB an hour in the soak of
    docs/hostile-input.md. Before threads are started. Nothing is done where ``MALLOC_ARENA_MAX`` says otherwise or the
    C library has no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, _ARENAS)
