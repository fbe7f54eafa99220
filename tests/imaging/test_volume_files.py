"""Volume files: the same voxels at the same place in the patient, whatever the format's own convention."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.imaging.errors import ScanError, SeriesSelectionError, UnreadableScan, UnsupportedFormat, UploadTooLarge
from app.imaging.inputs import InputFile, ScanFile
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from app.imaging.volume_files import volume_format, volume_header
from tests.imaging.dicom_worlds import SMALL, options, rotation, tiny_ct
from tests.imaging.test_archive import zipped

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique() -> CtVolume:
    return tiny_ct((7, 12, 10), direction_lps_zyx=rotation((1, 2, 3), 25) @ np.eye(3)[:, ::-1])


def write(volume: CtVolume, path: Path, *, compress: bool = False, pixel: object = None) -> Path:
    image = SimpleITK.GetImageFromArray(volume.hu if pixel is None else volume.hu.astype(pixel))
    image.SetSpacing(volume.grid.spacing_zyx_mm[::-1].tolist())
    image.SetOrigin(volume.grid.origin_lps_mm.tolist())
    image.SetDirection(volume.grid.direction_lps_zyx[:, ::-1].ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=compress)
    return path


def nifti(array_zyx: np.ndarray, affine_ras_xyz: np.ndarray, **header: object) -> bytes:
    """NIfTI-1 written by hand, with an sform only: independent of ITK."""
    head = bytearray(352)
    kind = {"int16": (4, 16), "float32": (16, 32), "float64": (64, 64), "uint8": (2, 8)}[array_zyx.dtype.name]
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, *header.get("dim", (3, *array_zyx.shape[::-1], 1, 1, 1, 1)))
    struct.pack_into("<2h", head, 70, *kind)
    spacing = header.get("pixdim", np.linalg.norm(affine_ras_xyz[:3, :3], axis=0))
    struct.pack_into("<8f", head, 76, 1.0, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", head, 108, 352.0, header.get("slope", 1.0), header.get("intercept", 0.0))
    struct.pack_into("<B", head, 123, 2)
    struct.pack_into("<2h", head, 252, 0, header.get("sform_code", 1))
    for row in range(3):
        struct.pack_into("<4f", head, 280 + 16 * row, *affine_ras_xyz[row])
    head[344:348] = b"n+1\0"
    return bytes(head) + array_zyx.tobytes()


def ras_affine(volume: CtVolume) -> np.ndarray:
    """NIfTI affine from (x, y, z) index to RAS, computed by hand from the grid's (z, y, x) to LPS."""
    return LPS_TO_RAS @ volume.grid.affine[:, [2, 1, 0, 3]]


def refusal(source: Path | list[Path]) -> ScanError:
    with pytest.raises(ScanError) as caught:
        read_ct(source, options())
    return caught.value


@pytest.mark.parametrize(
    ("suffix", "compress", "source_format"),
    [
        (".mha", False, "metaimage"),
        (".mha", True, "metaimage"),
        (".mhd", False, "metaimage"),
        (".mhd", True, "metaimage"),
        (".nii", False, "nifti"),
        (".nii.gz", True, "nifti"),
        (".nrrd", False, "nrrd"),
        (".nrrd", True, "nrrd"),
    ],
)
def test_every_format(tmp_path: Path, suffix: str, compress: bool, source_format: str) -> None:
    write(oblique(), tmp_path / f"scan{suffix}", compress=compress)
    volume, report = read_ct(tmp_path, options())
    np.testing.assert_array_equal(volume.hu, oblique().hu)
    np.testing.assert_allclose(volume.grid.affine, oblique().grid.affine, atol=1e-4)
    assert (report.source_format, report.chosen.slice_count, report.files_ignored) == (source_format, 7, ())
    assert volume.identity is None


def test_nifti_is_turned_from_ras_to_lps(tmp_path: Path) -> None:
    (tmp_path / "x.nii").write_bytes(nifti(oblique().hu, ras_affine(oblique())))
    volume, _ = read_ct(tmp_path / "x.nii", options())
    np.testing.assert_allclose(volume.grid.affine, oblique().grid.affine, atol=1e-4)
    np.testing.assert_array_equal(volume.hu, oblique().hu)


def test_nifti_slope_and_rounding(tmp_path: Path) -> None:
    stored = np.full((4, 5, 6), 10.4, np.float32)
    stored[0], stored[1] = 1e9, -1e9
    (tmp_path / "x.nii").write_bytes(nifti(stored, np.eye(4), slope=2.0, intercept=-1024.0))
    hu = read_ct(tmp_path / "x.nii", options())[0].hu
    assert [int(plane[0, 0]) for plane in hu] == [32767, -32768, -1003, -1003]


@pytest.mark.parametrize("offset", [2.0**27, 2.0**40, 1e38])
def test_what_comes_before_the_samples_is_bounded(tmp_path: Path, offset: float) -> None:
    """Found by fuzzing: of a compressed file it was all inflated into memory."""
    data = bytearray(nifti(oblique().hu, ras_affine(oblique())))
    struct.pack_into("<f", data, 108, offset)
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(bytes(data)))
    assert refusal(tmp_path / "x.nii.gz").code == "header_too_large"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    stored = np.zeros((4, 5, 6), np.float32)
    stored[3, 4, 5] = value
    (tmp_path / "x.nii").write_bytes(nifti(stored, np.eye(4)))
    assert refusal(tmp_path).code == "not_finite"


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "too_many_voxels", UploadTooLarge),
        ({"dim": (3, 100, 100, 100, 1, 1, 1, 1)}, "truncated", UnreadableScan),
        ({"dim": (3, 6, 5, -4, 1, 1, 1, 1)}, "damaged_header", UnreadableScan),
        ({"dim": (4, 6, 5, 4, 9, 1, 1, 1)}, "unsupported_format", UnsupportedFormat),
        ({"dim": (2, 6, 5, 1, 1, 1, 1, 1)}, "unsupported_format", UnsupportedFormat),
        ({"sform_code": 0}, "invalid_geometry", UnreadableScan),
        ({"pixdim": (2.0, 1.0, 1.0)}, "invalid_geometry", UnreadableScan),
    ],
)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
def test_nifti_headers_that_lie(
    tmp_path: Path, change: dict[str, object], code: str, kind: type[ScanError], compress: bool
) -> None:
    data = nifti(np.zeros((4, 5, 6), np.int16), np.eye(4), **change)
    (tmp_path / ("x.nii.gz" if compress else "x.nii")).write_bytes(gzip.compress(data) if compress else data)
    error = refusal(tmp_path)
    assert (error.code, type(error)) == (code, kind)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([0.0, 1, 1, 1]),
        np.diag([np.nan, 1, 1, 1]),
        np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
)
def test_sform_that_is_no_rotation(tmp_path: Path, affine: np.ndarray) -> None:
    (tmp_path / "x.nii").write_bytes(nifti(np.zeros((4, 5, 6), np.int16), affine))
    assert refusal(tmp_path).code == "invalid_geometry"


def test_gzip_that_goes_on_for_ever(tmp_path: Path) -> None:
    """Zeros without end behind a small volume: nothing beyond what the header promises is inflated."""
    data = nifti(oblique().hu, ras_affine(oblique())) + bytes(50_000_000)
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(data, 1))
    assert refusal(tmp_path).code == "length_mismatch"


def test_samples_are_found_by_the_senders_name(tmp_path: Path) -> None:
    write(oblique(), tmp_path / "scan.mhd")
    files = []
    for i, name in enumerate(("scan.raw", "notes.txt", "scan.mhd")):
        path = tmp_path / f"upload-{i}"
        path.write_bytes((tmp_path / name).read_bytes() if name != "notes.txt" else b"hello")
        files.append(InputFile(path, name=f"C:\\scans\\{name}"))
    volume, report = read_ct(files, options())
    np.testing.assert_array_equal(volume.hu, oblique().hu)
    assert [(each.code, each.values["file"]) for each in report.files_ignored] == [("not_dicom", 1)]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "LIST", "img%03d.raw 1 9 1", "..", ""])
def test_samples_are_never_looked_for_elsewhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "upload"
    folder.mkdir()
    write(oblique(), folder / "scan.mhd")
    (tmp_path / "secret").write_bytes((folder / "scan.raw").read_bytes())
    text = (folder / "scan.mhd").read_text().replace("scan.raw", name)
    (folder / "scan.mhd").write_text(text)
    assert isinstance(refusal(folder), UnsupportedFormat)


def test_samples_that_did_not_come(tmp_path: Path) -> None:
    write(oblique(), tmp_path / "scan.mhd")
    (tmp_path / "scan.raw").unlink()
    assert refusal(tmp_path).code == "missing_data_file"


@pytest.mark.parametrize("method", ["stored", "deflated"])
def test_from_an_archive(tmp_path: Path, method: str) -> None:
    write(oblique(), tmp_path / "scan.mhd")
    members = {f"a/{name}": (tmp_path / name).read_bytes() for name in ("scan.mhd", "scan.raw")}
    (tmp_path / "scan.zip").write_bytes(zipped(members, method == "deflated" and 8))
    volume, _ = read_ct(tmp_path / "scan.zip", options())
    np.testing.assert_array_equal(volume.hu, oblique().hu)
    np.testing.assert_allclose(volume.grid.affine, oblique().grid.affine, atol=1e-6)


def edited(path: Path, old: str, new: str) -> Path:
    """Replace the first line that begins with ``old``."""
    data, count = re.subn(rb"(?m)^" + re.escape(old.encode()) + rb"[^\n]*", new.encode(), path.read_bytes(), count=1)
    assert count == 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("DimSize = 10 12 7", "DimSize = 10 12 8", "truncated"),
        ("DimSize = 10 12 7", "DimSize = 9999 9999 9999", "too_many_voxels"),
        ("DimSize = 10 12 7", "DimSize = 10 12", "unsupported_format"),
        ("DimSize = 10 12 7", "DimSize = 10 0 7", "damaged_header"),
        ("NDims = 3", "NDims = 4", "unsupported_format"),
        ("ElementType", "ElementType = MET_NONSENSE", "damaged_header"),
        ("ElementDataFile", "ElementFata = LOCAL", "damaged_header"),
        ("BinaryData = True", "BinaryData = False", "unsupported_format"),
        ("ElementSpacing", "ElementSpacing = 1 nan 1", "invalid_geometry"),
        ("ElementSpacing", "ElementSpacing = 1 1 1e9", "invalid_geometry"),
        ("TransformMatrix = ", "TransformMatrix = 2 0 0 0 2 0 0 0 2", "invalid_geometry"),
    ],
)
def test_metaimage_headers_that_lie(tmp_path: Path, old: str, new: str, code: str) -> None:
    assert refusal(edited(write(oblique(), tmp_path / "x.mha"), old, new)).code == code


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("sizes: 10 12 7", "sizes: 10 12 8", "truncated"),
        ("sizes: 10 12 7", "sizes: 9999 9999 9999", "too_many_voxels"),
        ("encoding: raw", "encoding: raw\ndata file: /etc/passwd", "unsupported_format"),
        ("encoding: raw", "encoding: ascii", "unsupported_format"),
        ("space: left-posterior-superior", "space: scanner-xyz", "invalid_geometry"),
        ("type: short", "type: block", "damaged_header"),
        ("dimension: 3", "dimension: x", "damaged_header"),
    ],
)
def test_nrrd_headers_that_lie(tmp_path: Path, old: str, new: str, code: str) -> None:
    assert refusal(edited(write(oblique(), tmp_path / "x.nrrd"), old, new)).code == code


def test_damaged_samples(tmp_path: Path) -> None:
    """ITK gives made-up voxels for each of these."""
    path = write(oblique(), tmp_path / "x.mha", compress=True)
    good = path.read_bytes()
    for spoiled, code in (
        (good[:-500] + bytes(100) + good[-400:], "damaged_pixels length_mismatch"),
        (good[:-1] + bytes([good[-1] ^ 1]), "damaged_pixels"),
        (good[:-400], "truncated"),
        (good[:-2], "truncated"),
    ):
        path.write_bytes(spoiled)
        assert refusal(path).code in code.split()


def test_several_volumes_and_series_uid(tmp_path: Path) -> None:
    write(oblique(), tmp_path / "a.mha")
    with pytest.raises(SeriesSelectionError) as caught:
        read_ct(tmp_path, options(series_uid="1.2.3"))
    assert caught.value.code == "series_not_found"
    write(oblique(), tmp_path / "b.mha")
    assert refusal(tmp_path).code == "ambiguous_series"


def test_values_that_are_no_hounsfield_units(tmp_path: Path) -> None:
    scan = oblique()
    write(replace(scan, hu=np.abs(scan.hu)), tmp_path / "x.mha")
    _, report = read_ct(tmp_path, options())
    assert [warning.code for warning in report.warnings] == ["no_air"]
    write(replace(scan, hu=np.full_like(scan.hu, -1000)), tmp_path / "x.mha")
    _, report = read_ct(tmp_path, options())
    assert [warning.code for warning in report.warnings] == ["constant_volume"]


def test_too_large_for_the_limits(tmp_path: Path) -> None:
    write(oblique(), tmp_path / "x.mha")
    with pytest.raises(UploadTooLarge):
        read_ct(tmp_path, options(limits=replace(SMALL, max_voxels=100)))


HEADERS: list[Callable[[], bytes]] = [
    lambda: nifti(np.zeros((2, 2, 2), np.int16), np.eye(4)),
    lambda: (
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nspace: LPS\nspace directions: (1,0,0)\nencoding: raw\n\n"
    ),
    lambda: b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(range(3)), st.integers(0, 352), st.binary(max_size=40))
def test_any_damage_to_a_header_is_told(tmp_path: Path, which: int, at: int, junk: bytes) -> None:
    data = HEADERS[which]()
    data = data[:at] + junk + data[at + len(junk) :]
    path = tmp_path / "x"
    path.write_bytes(data)
    kind = volume_format(data[:352], "x")
    if kind is None:
        return
    try:
        header = volume_header(ScanFile(0, "x", path, 0, len(data)), kind)
    except ScanError:
        return
    assert min(header.size_xyz) > 0
    assert header.data_name is None or "/" not in header.data_name


def test_gzip_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(b"not a volume"))
    assert refusal(tmp_path).code == "truncated"
    (tmp_path / "x.nii.gz").write_bytes(b"\x1f\x8b" + zlib.compress(b"x" * 999))
    assert refusal(tmp_path).code == "damaged_header"
