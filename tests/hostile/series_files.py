"""Rows 22 to 31: series that are no regular chest CT, and volume files that lie."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import MRImageStorage

from app.imaging.volume import CtVolume, Grid
from app.phantom.dicom_headers import SeriesAttributes
from app.phantom.files import write_nifti
from tests.hostile.worlds import CANARY, MIB, crc_of_zeros, deflated_zeros, edited, one, small_ct, written

GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def slice_missing(folder: Path) -> list[Path]:
    paths = written(folder)
    return paths[:9] + paths[10:]


def slice_sent_twice(folder: Path) -> list[Path]:
    """Byte for byte; harmless."""
    paths = written(folder)
    return [*paths, *one(folder, paths[4].read_bytes(), f"{CANARY}again.dcm")]


def two_at_one_place(folder: Path) -> list[Path]:
    def edit(dataset: Dataset, z: int) -> None:
        if z == 6:
            dataset.ImagePositionPatient = list(_position(dataset, -5.0))

    return written(folder, edit)


def _position(dataset: Dataset, up_mm: float) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in dataset.ImagePositionPatient)
    return x, y, z + up_mm


def two_series(folder: Path) -> list[Path]:
    volume = small_ct()
    other = CtVolume(volume.hu[:, ::-1].copy(), volume.grid)
    return written(folder / "a") + written(folder / "b", volume=other)


def one_turned(folder: Path) -> list[Path]:
    return edited(folder, "ImageOrientationPatient", ["0", "1", "0", "1", "0", "0"], only=7)


def one_of_another_frame(folder: Path) -> list[Path]:
    return edited(folder, "FrameOfReferenceUID", "1.2.3.4.5", only=7)


def one_of_another_size(folder: Path) -> list[Path]:
    def edit(dataset: Dataset, z: int) -> None:
        if z == 7:
            dataset.Rows, dataset.PixelData = 32, dataset.PixelData[: len(dataset.PixelData) // 2]

    return written(folder, edit)


def gantry_tilted(folder: Path) -> list[Path]:
    """Sheared: each slice is moved along y although the rows and columns say otherwise."""

    def edit(dataset: Dataset, z: int) -> None:
        x, y, height = (float(v) for v in dataset.ImagePositionPatient)
        dataset.ImagePositionPatient = [x, y + 1.8 * z, height]
        dataset.GantryDetectorTilt = "20"

    return written(folder, edit)


def oblique(folder: Path) -> list[Path]:
    """Turned by 20 degrees about x as a whole: a regular volume, to be read."""
    angle = np.radians(20.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    volume = small_ct()
    grid = Grid.from_spacing(
        volume.grid.shape_zyx,
        volume.grid.spacing_zyx_mm,
        volume.grid.origin_lps_mm,
        turn @ volume.grid.direction_lps_zyx,
    )
    return written(folder, volume=CtVolume(volume.hu, grid))


def no_spacing(folder: Path) -> list[Path]:
    return edited(folder, "PixelSpacing", ["0", "0"])


def negative_spacing(folder: Path) -> list[Path]:
    return edited(folder, "PixelSpacing", ["-0.7", "0.7"])


def cosmic_spacing(folder: Path) -> list[Path]:
    return edited(folder, "PixelSpacing", ["1e30", "1e30"])


def no_orientation(folder: Path) -> list[Path]:
    return edited(folder, "ImageOrientationPatient", ["0"] * 6)


def half_a_position(folder: Path) -> list[Path]:
    return edited(folder, "ImagePositionPatient", ["1", "2"])


def slope_of_each_slice(folder: Path) -> list[Path]:
    """As PET and some CT have it: to be applied slice by slice."""

    def edit(dataset: Dataset, z: int) -> None:
        if z % 2:
            dataset.RescaleSlope = "2"

    return written(folder, edit)


def cosmic_slope(folder: Path) -> list[Path]:
    return edited(folder, "RescaleSlope", "1e38")


def no_rescale(folder: Path) -> list[Path]:
    return edited(folder, "RescaleIntercept", None)


def magnetic(folder: Path) -> list[Path]:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage

    return written(folder, edit, series=SeriesAttributes(modality="MR"))


def report_only(folder: Path) -> list[Path]:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"
        dataset.Modality = "SR"
        del dataset.PixelData

    return written(folder, edit)[:1]


def localizer(folder: Path) -> list[Path]:
    return written(folder, series=SeriesAttributes(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")))


def one_slice(folder: Path) -> list[Path]:
    return written(folder)[:1]


def head(folder: Path) -> list[Path]:
    return written(folder, series=SeriesAttributes(body_part_examined="HEAD", series_description="HEAD"))


def thick(folder: Path) -> list[Path]:
    return edited(folder, "SliceThickness", "5")


def air(folder: Path) -> list[Path]:
    return written(folder, volume=_constant(-1000))


def water(folder: Path) -> list[Path]:
    return written(folder, volume=_constant(0))


def _constant(hu: int) -> CtVolume:
    volume = small_ct()
    return CtVolume(np.full_like(volume.hu, hu), volume.grid)


def not_a_number(folder: Path) -> list[Path]:
    stored = small_ct().hu.astype(np.float32)
    stored[3, 4, 5] = np.nan
    return one(folder, nifti_header(stored.shape[::-1], kind=(16, 32)) + stored.tobytes(), f"{CANARY}.nii")


def nifti_bomb(folder: Path) -> list[Path]:
    """1 GiB from 1 MB, behind a header that wants it all."""
    head_bytes = nifti_header((1024, 1024, 512))
    stored = b"\x00" + struct.pack("<HH", len(head_bytes), len(head_bytes) ^ 0xFFFF) + head_bytes
    tail = struct.pack("<LL", crc_of_zeros(1), 1024 * MIB)
    return one(folder, GZIP_HEAD + stored + deflated_zeros(1024) + tail, f"{CANARY}.nii.gz")


def nifti_bomb_of_a_small_image(folder: Path) -> list[Path]:
    """The header wants 200 kB; 1 GiB comes after it."""
    head_bytes = nifti_header((64, 64, 24))
    stored = b"\x00" + struct.pack("<HH", len(head_bytes), len(head_bytes) ^ 0xFFFF) + head_bytes
    tail = struct.pack("<LL", crc_of_zeros(1), 1024 * MIB)
    return one(folder, GZIP_HEAD + stored + deflated_zeros(1024) + tail, f"{CANARY}.nii.gz")


def nifti_bomb_before_the_image(folder: Path) -> list[Path]:
    """A small image that is said to begin after 1 GiB of zeros, which are there."""
    head_bytes = bytearray(nifti_header((64, 64, 24)))
    struct.pack_into("<f", head_bytes, 108, float(1 << 30))
    stored = b"\x00" + struct.pack("<HH", len(head_bytes), len(head_bytes) ^ 0xFFFF) + bytes(head_bytes)
    return one(folder, GZIP_HEAD + stored + deflated_zeros(1025), f"{CANARY}.nii.gz")


def nifti_of_the_greatest_size(folder: Path) -> list[Path]:
    return one(folder, nifti_header((32767, 32767, 32767)) + bytes(1000), f"{CANARY}.nii")


def nifti_sheared(folder: Path) -> list[Path]:
    """An sform whose axes are no rotation: two of them are the same."""
    rows = ((5, 5, 0, 0), (0, 0, 0, 0), (0, 0, 5, 0))
    content = nifti_header(small_ct().hu.shape[::-1], rows=rows) + small_ct().hu.tobytes()
    return one(folder, content, f"{CANARY}.nii")


def good_nifti(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(write_nifti(small_ct(), folder / f"{CANARY}.nii.gz"))]


def nifti_header(
    shape_xyz: tuple[int, ...],
    kind: tuple[int, int] = (4, 16),
    rows: tuple[tuple[float, ...], ...] = ((5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 5, 0)),
) -> bytes:
    made = bytearray(352)
    struct.pack_into("<i", made, 0, 348)
    struct.pack_into("<8h", made, 40, 3, *shape_xyz, 1, 1, 1, 1)
    struct.pack_into("<2h", made, 70, *kind)
    struct.pack_into("<8f", made, 76, 1.0, 5.0, 5.0, 5.0, 0, 0, 0, 0)
    struct.pack_into("<3f", made, 108, 352.0, 1.0, 0.0)
    struct.pack_into("<B", made, 123, 2)
    made[148 : 148 + len(CANARY)] = CANARY.encode()
    struct.pack_into("<2h", made, 252, 0, 1)
    for row, values in enumerate(rows):
        struct.pack_into("<4f", made, 280 + 16 * row, *values)
    made[344:348] = b"n+1\0"
    return bytes(made)
