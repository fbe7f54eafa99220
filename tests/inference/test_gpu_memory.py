"""Asking the driver for the memory of its GPUs; here a library with the same functions that has two and loses one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.inference.gpu_memory import GpuMemory, gpu_memory_probe

DRIVER = """
typedef struct {{ unsigned long long total, free, used; }} nvmlMemory_t;
static int devices[3] = {{16, 24, 80}};
int nvmlInit_v2(void) {{ return {init}; }}
int nvmlDeviceGetCount_v2(unsigned int *count) {{ *count = 3; return 0; }}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {{ *device = &devices[index]; return 0; }}
int nvmlDeviceGetMemoryInfo(void *device, nvmlMemory_t *memory) {{
    unsigned long long gib = *(int *)device;
    if (gib == 24) return 15; /* the GPU is lost */
    memory->total = gib << 30; memory->free = (gib << 30) - 5; memory->used = 5;
    return 0;
}}
"""


def driver(folder: Path, init: int = 0) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        reason = "no C compiler here: apt-get install gcc"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    source, library = folder / "nvml.c", folder / f"libnvml-{init}.so"
    source.write_text(DRIVER.format(init=init))
    subprocess.run([str(compiler), "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return str(library)


def test_each_gpu_that_answers_is_told_with_its_memory(tmp_path: Path) -> None:
    ask = gpu_memory_probe(driver(tmp_path))
    assert ask is not None
    assert ask() == (GpuMemory(0, 16 << 30, 5), GpuMemory(2, 80 << 30, 5))


def test_a_driver_that_does_not_start_is_none(tmp_path: Path) -> None:
    assert gpu_memory_probe(driver(tmp_path, init=9)) is None


def test_no_driver_no_probe(tmp_path: Path) -> None:
    assert gpu_memory_probe("libabsent.so.1") is None
    (tmp_path / "other.c").write_text("int other(void) { return 0; }")
    library = tmp_path / "libother.so"
    compiler = shutil.which("cc")
    if compiler is not None:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "other.c"], check=True, timeout=60)
        assert gpu_memory_probe(str(library)) is None
