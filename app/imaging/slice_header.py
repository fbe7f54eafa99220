"""One slice as its header describes it: what geometry, series choice and pixel decoding work from."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.imaging.errors import UnreadableScan
from app.imaging.inputs import ScanFile
from app.imaging.transfer_syntax import TransferSyntax
from app.imaging.visit import Visit


@dataclass(frozen=True)
class PixelFormat:
    """How stored values are laid out (PS3.3 C.7.6.3.1)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    little_endian: bool
    padding: tuple[int, int] | None = None
    """Inclusive range of stored values that are padding, not measured."""

    @property
    def frame_bytes(self) -> int:
        """Size of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class PixelLocation:
    """Where the value of the pixel data element of a file lies."""

    offset: int
    """First byte, counted from the start of the `ScanFile`."""
    length: int | None
    """Bytes as declared; None when undefined (encapsulated)."""


@dataclass(frozen=True)
class SliceHeader:
    """A classic single-frame image, or one frame of an Enhanced image.

    A field is None, or an empty tuple, where the attribute is absent or not valid; nothing has been judged yet.
    """

    file: ScanFile
    transfer_syntax: TransferSyntax | None
    """None when it is one that is not read."""
    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    frame_of_reference_uid: str | None
    modality: str | None
    image_type: tuple[str, ...]
    instance_number: int | None
    body_part: str | None
    kernel: str | None
    has_contrast: bool
    is_lossy: bool
    slice_thickness_mm: float | None
    gantry_tilt_deg: float | None
    position_lps_mm: tuple[float, ...] | None
    orientation_lps: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    """Distance between rows, between columns."""
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str | None
    samples_per_pixel: int | None
    photometric: str | None
    frame_count: int
    """Frames in the same file; 0 when the attribute is not valid."""
    pixel_format: PixelFormat | None
    pixels: PixelLocation | None
    frame_number: int | None = None
    """1-based frame of an Enhanced image."""
    patient_age: str | None = field(default=None, repr=False)
    patient_sex: str | None = field(default=None, repr=False)
    """Both as encoded; see `app.imaging.patient_attributes`."""
    visit: Visit = field(default_factory=Visit)

    @property
    def frame_index(self) -> int:
        """0-based place of this frame's pixels in the file."""
        return (self.frame_number or 1) - 1


def damaged(file: ScanFile, why: str, code: str = "damaged_header") -> UnreadableScan:
    """The error for one damaged file, named by its index."""
    return UnreadableScan(
        f"File {file.index} is damaged: {why}. Send it again from its source.", code=code, values={"file": file.index}
    )
