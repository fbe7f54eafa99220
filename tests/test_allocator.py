"""Counted by glibc itself, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

THREADS_ALLOCATE = """
import ctypes, threading
from app.allocator import share_arenas
{before}
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(12)
def allocate():
    together.wait()
    for _ in range(200):
        libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""

pytestmark = pytest.mark.skipif(
    getattr(ctypes.CDLL(None), "malloc_info", None) is None, reason="glibc's allocator only; this is another C library"
)


def arenas(before: str, **variables: str) -> int:
    """How many arenas twelve threads that allocate at once have made, once ``before`` was done."""
    said = subprocess.run(
        [sys.executable, "-c", THREADS_ALLOCATE.format(before=before)], capture_output=True, check=True, text=True,
        env={name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | variables,
    )  # fmt: skip
    return said.stdout.count("<heap nr=")


def test_threads_share_two_arenas() -> None:
    assert arenas("") > 2, "glibc gives arenas to threads by itself"
    assert arenas("share_arenas()") == 2


def test_the_variable_of_an_operator_wins() -> None:
    assert arenas("share_arenas()", MALLOC_ARENA_MAX="3") == 3
