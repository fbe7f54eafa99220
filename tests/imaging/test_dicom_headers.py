"""The header gate says what pydicom's own reader says, on files of many origins that pydicom ships."""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from app.imaging.dicom_headers import read_slice_headers
from app.imaging.dicom_values import ReadBudget
from app.imaging.inputs import ScanFile
from app.imaging.read_options import ReadLimits
from app.imaging.slice_header import SliceHeader
from tests.imaging.dicom_worlds import write_tiny


def by_pydicom(path: Path) -> Dataset | None:
    """What pydicom reads of a complete DICOM file; None for what is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, OSError, ValueError, NotImplementedError):
            return None
    return dataset if "TransferSyntaxUID" in dataset.file_meta else None


FOLDER = Path(pydicom.__file__).parent / "data/test_files"
FILES = [path for path in sorted(FOLDER.glob("*.dcm")) if by_pydicom(path) is not None]


def gate(path: Path, scratch: Path) -> list[SliceHeader]:
    return read_slice_headers(
        ScanFile(0, path.name, path, 0, path.stat().st_size), scratch, ReadLimits(), ReadBudget(400_000)
    )


def numbers(value: object) -> tuple[float, ...] | None:
    return tuple(float(v) for v in value) if value else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_same_values(path: Path, tmp_path: Path) -> None:
    dataset = by_pydicom(path)
    header = gate(path, tmp_path)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert header.sop_instance_uid == (str(dataset.get("SOPInstanceUID", "")) or None)
        assert header.modality == (str(dataset.get("Modality") or "") or None)
        if header.frame_number is None:
            assert header.position_lps_mm == numbers(dataset.get("ImagePositionPatient"))
            assert header.orientation_lps == numbers(dataset.get("ImageOrientationPatient"))
            assert header.pixel_spacing_mm == numbers(dataset.get("PixelSpacing"))
        if header.pixel_format is not None:
            layout = header.pixel_format
            assert (layout.rows, layout.columns) == (dataset.Rows, dataset.Columns)
            assert (layout.bits_stored, layout.is_signed) == (dataset.BitsStored, dataset.PixelRepresentation == 1)


def test_pixels_are_where_the_header_ends(tmp_path: Path) -> None:
    for syntax, overhead in (("1.2.840.10008.1.2", 8), ("1.2.840.10008.1.2.1", 12), ("1.2.840.10008.1.2.2", 12)):
        path = write_tiny(tmp_path / syntax, transfer_syntax_uid=syntax)[0]
        (header,) = gate(path, tmp_path)
        assert header.pixels is not None
        assert (header.pixels.length, header.pixels.offset) == (240, path.stat().st_size - 240)
        assert path.read_bytes()[header.pixels.offset - overhead :][:4] in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")


def test_values_that_are_not_valid_are_absent(tmp_path: Path) -> None:
    def spoil(dataset: Dataset, _: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.add_new(0x00200032, "LO", "1\\two\\3")
            dataset.add_new(0x00280030, "LO", "nan\\inf")
            dataset.add_new(0x00181210, "LO", "<script>")
            dataset.add_new(0x00200013, "LO", "7.5")
            dataset.add_new(0x00180015, "LO", "chest; drop")

    (header,) = gate(write_tiny(tmp_path, spoil)[0], tmp_path)
    found = (header.position_lps_mm, header.pixel_spacing_mm, header.kernel, header.instance_number, header.body_part)
    assert found == (None,) * 5
