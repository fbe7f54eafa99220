"""The scans that are measured: phantoms written once into a scratch folder, and real CTs where they are at hand."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian

from app.imaging.volume import CtVolume, Grid
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.pixel_encoding import TRANSFER_SYNTAXES
from tests.benchmarks.machine import cores
from tests.benchmarks.measuring import ROOT, say

ENHANCED = "Enhanced CT, one file"
CHEST_MM = 375.0
REAL_DATA = ROOT.parent / "shared" / "data" / "ct"
_TALL_SPACING_MM = 1.0


@dataclass(frozen=True)
class Scans:
    """Where scans are written, and how fine: 512 x 512 at 0.7 mm, or 256 x 256 at 1.4 mm for a quick look."""

    folder: Path
    matrix: int = 512

    @property
    def pixel_mm(self) -> float:
        """In-plane spacing; the field of view is always 358 mm."""
        return 0.7 * 512 / self.matrix

    def chest(self, slices: int) -> Path:
        """375 mm of chest as uncompressed DICOM, one file a slice; ``truth.json`` beside it holds its nodules."""
        return self._written(f"chest-{slices}", _write_chest, slices, self.matrix, self.pixel_mm)

    def syntaxes(self, slices: int) -> dict[str, Path]:
        """The same chest in every transfer syntax that the phantom can write, and as one Enhanced object."""
        source = self.chest(slices).parent / "hu.npy"
        jobs = {UID(uid).name: (f"syntax-{slices}-{uid}", str(uid), False) for uid in TRANSFER_SYNTAXES}
        jobs[ENHANCED] = (f"syntax-{slices}-enhanced", str(ExplicitVRLittleEndian), True)
        pixel_mm = self.pixel_mm
        with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
            written = {
                label: pool.submit(_write_syntax, self.folder / name, source, pixel_mm, uid, enhanced)
                for label, (name, uid, enhanced) in jobs.items()
            }
            return {label: future.result() for label, future in written.items()}

    def tall(self, slices: int, like: int) -> Path:
        """The chest of ``like`` slices stretched or squeezed along z to 1 mm a slice: lung volume follows length."""
        source = self.chest(like).parent / "hu.npy"
        return self._written(f"tall-{slices}", _write_tall, slices, source, self.pixel_mm)

    def truth(self, slices: int) -> list[dict[str, Any]]:
        """Nodules of `chest`: ``center_lps_mm`` and ``diameter_mm``."""
        nodules: list[dict[str, Any]] = json.loads((self.chest(slices).parent / "truth.json").read_text())
        return nodules

    def _written(self, name: str, write: Any, *arguments: Any) -> Path:
        folder = self.folder / name
        if not (folder / "series").is_dir():
            say(f"  writing {name}")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write(folder, *arguments)
        return folder / "series"


def real_scans() -> dict[str, Path]:
    """Real CTs by name; empty where ../shared/data is not there."""
    return {path.stem: path for path in sorted(REAL_DATA.glob("LIDC-IDRI-*")) if path.suffix in (".zip", ".mha")}


def grid_of(shape_zyx: tuple[int, ...], slice_mm: float, pixel_mm: float) -> Grid:
    """An axis-aligned grid in the middle of the patient."""
    depth, height, width = shape_zyx
    spacing = (slice_mm, pixel_mm, pixel_mm)
    origin = [-(n - 1) / 2 * mm for n, mm in zip((width, height, depth), spacing[::-1], strict=True)]
    return Grid.from_spacing((depth, height, width), spacing, origin)


def _write_chest(folder: Path, slices: int, matrix: int, pixel_mm: float) -> None:
    phantom = phantom_ct(
        shape_zyx=(slices, matrix, matrix), spacing_zyx_mm=(CHEST_MM / slices, pixel_mm, pixel_mm), seed=1
    )
    np.save(folder / "hu.npy", phantom.volume.hu)
    nodules = [{"center_lps_mm": n.center_lps_mm, "diameter_mm": n.diameter_mm} for n in phantom.nodules]
    (folder / "truth.json").write_text(json.dumps(nodules))
    write_dicom_series(phantom.volume, folder / "series")


def _write_syntax(folder: Path, source: Path, pixel_mm: float, uid: str, enhanced: bool) -> Path:
    if not folder.is_dir():
        hu = np.load(source)
        part = folder.with_name(folder.name + ".part")
        volume = CtVolume(hu, grid_of(hu.shape, CHEST_MM / len(hu), pixel_mm))
        write_dicom_series(volume, part, transfer_syntax_uid=uid, enhanced=enhanced)
        part.rename(folder)
    return folder


def _write_tall(folder: Path, slices: int, source: Path, pixel_mm: float) -> None:
    hu = _stretched(np.load(source, mmap_mode="r"), slices)
    write_dicom_series(CtVolume(hu, grid_of(hu.shape, _TALL_SPACING_MM, pixel_mm)), folder / "series")


def _stretched(hu: NDArray[np.int16], slices: int) -> NDArray[np.int16]:
    """Linear interpolation along z."""
    stretched = np.empty((slices, *hu.shape[1:]), np.int16)
    for z, position in enumerate(np.linspace(0, len(hu) - 1, slices)):
        below = int(position)
        above = min(below + 1, len(hu) - 1)
        low = hu[below].astype(np.float32)
        stretched[z] = np.rint(low + np.float32(position - below) * (hu[above] - low))
    return stretched
