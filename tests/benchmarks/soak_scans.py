"""Good scans for the soak, each with the nodules that the service must find, and new bytes every time."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import RLELossless

from app.api.model_choice import open_models
from app.inference.pipeline import AnalysisOptions, analyse
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.files import write_nifti
from app.phantom.nodules import NoduleSpec
from app.settings import Settings
from tests.hostile.worlds import CANARY, PATIENT

Found = tuple[tuple[float, ...], ...]
"""Of each nodule its centre in LPS mm, long axis in mm and probability."""
NODULES = (NoduleSpec(16.0), NoduleSpec(12.0))
_MARK = b"SOAK-0000000000"
_NEAR_MM = 8.0


@dataclass(frozen=True)
class Scan:
    """A phantom in one of the ways to send it."""

    name: str
    files: tuple[tuple[str, bytes], ...]
    as_zip: bool
    expected: Found

    def parts(self, number: int) -> list[tuple[str, tuple[str, bytes]]]:
        """What is sent the n-th time: the same image, but no copy of an earlier upload, which would be answered from
        what is stored.
        """
        marked = [(name, data.replace(_MARK, b"SOAK-%010d" % number)) for name, data in self.files]
        if not self.as_zip:
            return [("files", file) for file in marked]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in marked:
                archive.writestr(name, data)
        return [("files", (f"{CANARY}.zip", buffer.getvalue()))]

    def matches(self, found: Found) -> bool:
        return len(found) == len(self.expected) and bool(np.allclose(found, self.expected, atol=2e-3))


def what_was_found(result: dict[str, Any]) -> Found:
    """Of an answer of the service."""
    return tuple(
        sorted(
            (*nodule["center_lps_mm"], nodule["long_axis_mm"], nodule["probability"]) for nodule in result["nodules"]
        )
    )


def scans(folder: Path) -> list[Scan]:
    """Loose files, a zip, run-length encoded files and NIfTI of phantoms whose nodules the tiny model finds."""
    settings = Settings(model_store=folder / "models", models=("tiny",), device="cpu", threads=1)
    models, made = open_models(settings), []
    for seed in range(4):
        phantom = phantom_ct(shape_zyx=(64, 72, 72), spacing_zyx_mm=(5, 5, 5), noise_hu=5.0, seed=seed, nodules=NODULES)
        ways = {
            "loose files": _dicom(phantom, folder / f"{seed}" / "plain"),
            "zip": _dicom(phantom, folder / f"{seed}" / "zip"),
            "RLE": _dicom(phantom, folder / f"{seed}" / "rle", transfer_syntax_uid=RLELossless),
            "NIfTI": [_nifti(phantom, folder / f"{seed}" / f"{CANARY}.nii")],
        }
        for way, paths in ways.items():
            with models.registry.lease(models.named[0]) as model:
                findings = analyse(paths, model, AnalysisOptions(threads=1), lambda _progress: None)
            centres = [nodule.center_lps_mm for nodule in findings.nodules]
            truth = [true.center_lps_mm for true in phantom.nodules]
            assert centres, f"phantom {seed}: nothing is found"
            far = [min(np.linalg.norm(np.subtract(one, true)) for true in truth) for one in centres]
            assert max(far) < _NEAR_MM, f"phantom {seed}: {far} mm from a nodule"
            expected = tuple(
                sorted((*nodule.center_lps_mm, nodule.long_axis_mm, nodule.probability) for nodule in findings.nodules)
            )
            files = tuple((path.name, path.read_bytes()) for path in paths)
            assert all(_MARK in data for _, data in files)
            made.append(Scan(f"phantom {seed}, {way}", files, way == "zip", expected))
    return made


def _dicom(phantom: PhantomCt, folder: Path, **series: Any) -> list[Path]:
    def mark(dataset: Dataset, _: int) -> None:
        dataset.StudyDescription = _MARK.decode()

    return write_dicom_series(phantom.volume, folder, patient=PATIENT, edit=mark, **series)


def _nifti(phantom: PhantomCt, path: Path) -> Path:
    write_nifti(phantom.volume, path)
    data = bytearray(path.read_bytes())
    data[148 : 148 + len(_MARK)] = _MARK  # descrip
    path.write_bytes(data)
    return path
