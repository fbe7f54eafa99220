"""Small chest CTs of a patient whose name must not be seen anywhere, whole and spoiled."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset

from app.imaging.volume import CtVolume
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series

CANARY = "QUAGGA"
"""In names, ids and file names of every scan here; nowhere in what the service says."""
PATIENT = PhantomPatient(name=f"{CANARY}^CANARY", patient_id=f"{CANARY}-0001", birth_date="19570317")
SHAPE_ZYX = (24, 64, 64)
MIB = 1 << 20

Edit = Callable[[Dataset, int], None]
Spoil = Callable[[bytes], bytes]


@cache
def small_ct() -> CtVolume:
    """24 slices of 5 mm."""
    return phantom_ct(shape_zyx=SHAPE_ZYX, spacing_zyx_mm=(5.0, 5.0, 5.0), noise_hu=5.0, nodule_count=0, seed=9).volume


def canary_name(z: int) -> str:
    return f"{CANARY}{z:04d}.dcm"


def written(folder: Path, edit: Edit | None = None, *, volume: CtVolume | None = None, **series: Any) -> list[Path]:
    """The small CT as a series, spoiled by ``edit`` before it is written."""
    series = {"patient": PATIENT, "file_names": canary_name, **series}
    return write_dicom_series(volume or small_ct(), folder, edit=edit, **series)


def edited(folder: Path, attribute: str, value: object, *, only: int | None = None) -> list[Path]:
    """One attribute set, or taken away, in every slice or in one."""

    def edit(dataset: Dataset, z: int) -> None:
        if only is not None and z != only:
            return
        if value is None:
            delattr(dataset, attribute)
        else:
            setattr(dataset, attribute, value)

    return written(folder, edit)


def spoiled(folder: Path, spoil: Spoil, which: int = 3, **series: Any) -> list[Path]:
    """A good series of which one file is spoiled, byte for byte."""
    paths = written(folder, **series)
    paths[which].write_bytes(spoil(paths[which].read_bytes()))
    return paths


def header_with(elements: bytes) -> Spoil:
    """Put elements before StudyDate, well before the pixels."""
    mark = b"\x08\x00\x20\x00DA"
    return lambda data: data.replace(mark, elements + mark, 1)


def element(group: int, number: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    if vr in (b"OB", b"SQ", b"UN"):
        return struct.pack("<HH2sHL", group, number, vr, 0, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


def rewritten(path: Path, edit: Callable[[Dataset], None]) -> None:
    """Change a file that is written already."""
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)


def one(folder: Path, content: bytes, name: str = f"{CANARY}.dcm") -> list[Path]:
    """A file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return [folder / name]


@cache
def deflated_zeros(mib: int) -> bytes:
    """A raw deflate stream of that many MiB of zeros: one block, flushed whole and repeated, so it is made at once."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = engine.compress(bytes(MIB)) + engine.flush(zlib.Z_FULL_FLUSH)
    return block * mib + engine.flush()


@cache
def crc_of_zeros(mib: int) -> int:
    crc = 0
    for _ in range(mib):
        crc = zlib.crc32(bytes(MIB), crc)
    return crc
