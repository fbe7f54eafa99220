"""What is fuzzed: for each target the inputs to begin with, made here, and a function that takes any bytes.

A target may raise only what its callers expect; everything else that comes out of it is a crash.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from app.api.routes.jobs import RetryOptions
from app.imaging.archive import unpack
from app.imaging.errors import LungNoduleError
from app.imaging.inputs import InputFile, ScanFile
from app.imaging.read_options import ReadLimits, ReadOptions
from app.imaging.reading import read_ct
from app.inference.manifest import load_manifest
from app.multipart import MultipartWriter, RelatedWriter, UploadLimits
from app.phantom.dicom_series import write_dicom_series
from app.phantom.files import write_metaimage, write_nifti, write_nrrd
from app.reporting import bundle
from app.reporting.assessment import RiskRequest, assess
from app.reporting.risk_examples import RISK_EXAMPLES
from tests.imaging.dicom_worlds import tiny_ct

LIMITS = ReadLimits(
    min_slices=1, min_coverage_mm=0.0, max_voxels=1 << 20, max_total_bytes=8 << 20, max_files=50,
    min_ratio_bytes=1 << 20,
    max_header_bytes=4 << 20, decode_workers=1, decode_memory_bytes=1 << 30, decode_timeout_s=10.0,
)  # fmt: skip
UPLOAD = UploadLimits(request_bytes=1 << 20, files=8, seconds=1.0, grace_s=1.0, bytes_per_s=1.0)
BOUNDARY = b"b"


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from outside."""

    seeds: Callable[[Path], Sequence[bytes]]
    """Made with the help of an empty folder."""
    run: Callable[[bytes, Path], None]
    """With an empty folder to work in."""
    expected: tuple[type[Exception], ...] = (LungNoduleError,)


def _read(name: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        path = folder / "input"
        path.write_bytes(data)
        read_ct([InputFile(path, name)], ReadOptions(limits=LIMITS, scratch_root=folder))

    return run


def _dicom(folder: Path) -> list[bytes]:
    scan, made = tiny_ct((3, 6, 5)), []
    syntaxes = (None, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
    for number, syntax in enumerate(syntaxes):
        more: dict[str, Any] = {} if syntax is None else {"transfer_syntax_uid": syntax}
        for enhanced in (False, True):
            paths = write_dicom_series(scan, folder / f"{number}{enhanced}", enhanced=enhanced, **more)
            made.append(paths[0].read_bytes())
    return made


def _volume(write: Callable[..., Path], suffix: str, **more: Any) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        scan = tiny_ct((3, 6, 5))
        made = [write(scan, folder / f"a{suffix}").read_bytes()]
        return made + ([write(scan, folder / f"b{suffix}", **more).read_bytes()] if more else [])

    return seeds


def _nifti(folder: Path) -> list[bytes]:
    return [write_nifti(tiny_ct((3, 6, 5)), folder / f"a{suffix}").read_bytes() for suffix in (".nii", ".nii.gz")]


def _zips(folder: Path) -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            archive.writestr("a/IM1", bytes(range(200)))
            archive.writestr("../IM2", b"x" * 900)
        made.append(packed.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, archive.open("big", "w", force_zip64=True) as member:
        member.write(b"zip64")
    return [*made, packed.getvalue()]


def _unzip(data: bytes, folder: Path) -> None:
    path = folder / "input"
    path.write_bytes(data)
    result = unpack(ScanFile(0, "x.zip", path, 0, len(data)), folder, LIMITS, 0)
    total = sum(len(file.read(0, file.size)) for file in result.files)
    assert total <= LIMITS.max_total_bytes


def _forms(_: Path) -> list[bytes]:
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.dcm"\r\nContent-Type: x/y\r\n\r\nscan\r\n'
    field = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
    related = b"--b\r\nContent-Type: application/dicom\r\n\r\nDICM\r\n"
    return [b"\x07" + part + field + b"--b--\r\n", b"\x03" + part * 3, b"\x84" + related * 2 + b"--b--\r\n"]


def _form(data: bytes, folder: Path) -> None:
    """The first byte says which writer, and how the body is cut."""
    if not data:
        return
    step, body = (data[0] & 0x7F) + 1, data[1:]
    writer = (
        RelatedWriter(BOUNDARY, folder, UPLOAD, "application/dicom")
        if data[0] & 0x80
        else MultipartWriter(BOUNDARY, folder, UPLOAD)
    )
    try:
        for start in range(0, len(body), step):
            writer.feed([body[start : start + step]])
        writer.finish()
    finally:
        writer.close()
    assert len(writer.upload.files) <= UPLOAD.files
    assert all(file.path.parent == folder for file in writer.upload.files)


def _manifests(folder: Path) -> list[bytes]:
    from tests.tiny_model import write_tiny_model  # noqa: PLC0415 - onnx is slow to import

    return [(write_tiny_model(folder) / "manifest.json").read_bytes()]


def _manifest(data: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(data)
    load_manifest(folder)


def _documents(_: Path) -> list[bytes]:
    retry = b'{"model": "a:1", "context": {"age_years": 61.5, "sex": "female", "setting": "screening"}, "prior": ""}'
    return [retry, *(json.dumps(told).encode() for _, (_, told) in RISK_EXAMPLES.items())]


def _document(data: bytes, _: Path) -> None:
    """As a request for an assessment, whose answer must be JSON again; as the body of a retry."""
    with suppress(ValidationError):
        RetryOptions.model_validate_json(data)
    json.loads(assess(RiskRequest.model_validate_json(data)).model_dump_json())


def _bundles(_: Path) -> list[bytes]:
    from datetime import UTC, datetime  # noqa: PLC0415

    from tests.api.standins import make_findings, make_nodule  # noqa: PLC0415

    made = bundle.pack(bundle.Bundle(b"{}", make_findings(make_nodule(1, 0.9)), datetime(2026, 1, 1, tzinfo=UTC)))
    stored = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as packed, zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name in packed.namelist():
            archive.writestr(name, packed.read(name))
    return [made, stored.getvalue()]


def _bundle(data: bytes, _: Path) -> None:
    bundle.unpack(data)


TARGETS: dict[str, Target] = {
    "reading": Target(_dicom, _read("a.dcm")),
    "zip": Target(_zips, _unzip),
    "multipart": Target(_forms, _form),
    "manifest": Target(_manifests, _manifest),
    "json": Target(_documents, _document, expected=(ValidationError, LungNoduleError)),
    "metaimage": Target(_volume(write_metaimage, ".mha", compressed=True), _read("a.mha")),
    "nifti": Target(_nifti, _read("a.nii")),
    "nrrd": Target(_volume(write_nrrd, ".nrrd", compressed=True), _read("a.nrrd")),
    "bundle": Target(_bundles, _bundle),
}


def write_seeds(target: Target, corpus: Path) -> None:
    """The inputs to begin with, as files."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(target.seeds(Path(folder))):
            (corpus / f"seed-{number}").write_bytes(data)
