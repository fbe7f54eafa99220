"""A disk that takes nothing more: full, or mounted read-only. Real file systems, so they need the right to mount."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect

from app.disk_faults import StorageFull
from app.multipart import UploadLimits
from app.uploads import receive_upload
from tests.hostile.series_files import good_nifti
from tests.hostile.site import site
from tests.hostile.worlds import MIB

SMALL_DISK_MIB = 6


def mounted(*options: str | Path) -> bool:
    return os.getuid() == 0 and not subprocess.run(["mount", *options], check=False, capture_output=True).returncode


@contextmanager
def unmounted_after(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder as it is, on a mount of its own that takes nothing."""
    if not mounted("--bind", folder, folder):
        pytest.skip("nothing can be mounted here: needs root and the right to mount")
    with unmounted_after(folder):
        assert mounted("-o", "remount,ro,bind", folder)
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "site" / "temp"
    folder.mkdir(parents=True)
    if not mounted("-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", folder):
        pytest.skip("a small file system cannot be mounted here: needs root and the right to mount")
    with unmounted_after(folder):
        yield folder


def test_no_room_for_an_upload(tmp_path: Path, tiny_model_store: Path, small_disk: Path) -> None:
    with site(tmp_path / "site", tiny_model_store, LUNGNODULE_MIN_FREE_DISK_BYTES=3 * MIB) as place:
        process = place.serve()
        large = tmp_path / "large.dcm"
        large.write_bytes(bytes((SMALL_DISK_MIB + 1) * MIB))  # a file of the disk's own size fits
        answer = place.post("/v1/predict", [large])
        assert answer.told == (503, "storage_full")
        assert "retry-after" in answer.headers
        place.until_clean()
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(4 * MIB))
        assert place.get("/readyz").told == (503, "disk_low")
        ballast.unlink()
        assert place.post("/v1/predict", good_nifti(tmp_path / "scan")).told == (200, "")
        assert process.poll() is None


def test_the_last_bytes_do_not_fit(small_disk: Path) -> None:
    """Python holds the end of a file until it is closed: what closing says is told like what writing says."""
    folder = small_disk / "upload"
    folder.mkdir()
    (small_disk / "ballast").write_bytes(bytes((SMALL_DISK_MIB - 1) * MIB))

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + bytes(MIB - 200)
        yield bytes(300)
        raise ClientDisconnect

    limits = UploadLimits(request_bytes=2 * MIB, files=1, seconds=60, grace_s=60, bytes_per_s=1)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    with pytest.raises(StorageFull):
        asyncio.run(receive_upload(body(), headers, folder, limits))


def test_a_disk_that_is_mounted_read_only(tmp_path: Path, tiny_model_store: Path) -> None:
    """Uploads, and then the store with its database: refused, told by readiness, and good again when it is writable."""
    with site(tmp_path / "site", tiny_model_store) as place:
        process = place.serve()
        scan = good_nifti(tmp_path / "scan")
        assert place.post("/v1/predict", scan).told == (200, "")
        with read_only(place.temp):
            answer = place.post("/v1/predict", scan)
            assert answer.told == (503, "storage_read_only")
            assert "retry-after" in answer.headers
            assert place.get("/readyz").told == (503, "disk_read_only")
        with read_only(place.data):
            assert place.post("/v1/jobs", scan).told == (503, "storage_read_only")
            assert place.post("/v1/predict", scan).told == (200, "")
        made = place.post("/v1/jobs", scan)
        assert made.status == 202, made.text
        place.until_clean()
        assert process.poll() is None
