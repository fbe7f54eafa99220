"""Memory of NVIDIA GPUs, from the driver's own library (NVML), where there is one. No package, no child process.

Function names and the layout of ``nvmlMemory_t`` are those of NVIDIA's NVML API reference; they have not changed since
its version 2.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True)
class GpuMemory:
    """Of one GPU, in bytes, with that of all its processes."""

    index: int
    total: int
    used: int


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def gpu_memory_probe(library: str = _LIBRARY) -> Callable[[], tuple[GpuMemory, ...]] | None:
    """Open the driver's library; gives what asks it for each GPU, or None where there is no driver.

    A GPU that does not answer is left out.
    """
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):
        return None

    def ask() -> tuple[GpuMemory, ...]:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return ()
        found = (_memory_of(nvml, index) for index in range(count.value))
        return tuple(memory for memory in found if memory is not None)

    return ask


def _memory_of(nvml: Any, index: int) -> GpuMemory | None:  # noqa: ANN401 - a CDLL makes its functions as they are asked for
    device, memory = ctypes.c_void_p(), _Memory()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) != 0:
        return None
    if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
        return None
    return GpuMemory(index, int(memory.total), int(memory.used))
