"""What a caller may ask of `read_ct`, and the limits that protect the service from what it is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30

MISSING_SLICES = "missing_slices"
"""Repair: a single absent slice is interpolated from its two neighbours."""
DUPLICATE_SLICES = "duplicate_slices"
"""Repair: of different slices at one position the one with the lowest instance number is kept."""
REPAIRS = frozenset({MISSING_SLICES, DUPLICATE_SLICES})


@dataclass(frozen=True)
class ReadLimits:
    """Sizes in bytes, counts and seconds above which a scan is refused before it costs memory or time."""

    max_files: int = 10_000
    """Files received, members of zip archives included."""
    max_total_bytes: int = 4 * GIB
    """All files together, uncompressed."""
    max_compression_ratio: float = 100.0
    """Uncompressed to compressed size of a zip or deflated file; looked at from ``min_ratio_bytes`` on."""
    min_ratio_bytes: int = 64 * MIB
    """Below this much uncompressed data the ratio is not looked at."""
    max_matrix: int = 4096
    """Rows, columns."""
    max_slices: int = 5_000
    """Slices or frames of one series."""
    max_voxels: int = 1 << 29
    """Voxels of one volume; 2 bytes each are allocated."""
    max_header_bytes: int = 64 * MIB
    """What comes before the pixel data of one DICOM file."""
    max_header_reads: int = 400_000
    """Reads of an element or item that all DICOM headers together may cost; see also the next."""
    header_reads_per_file: int = 4_000
    """Added to ``max_header_reads`` for each DICOM file."""
    min_slices: int = 20
    """Fewer do not show a lung."""
    min_coverage_mm: float = 60.0
    """Extent along the slice normal below which a series cannot show a lung."""
    decode_workers: int = 0
    """Child processes that decode compressed pixels; 0 takes one for each core, up to 8."""
    decode_memory_bytes: int = 2 * GIB
    """Address space of one such process."""
    decode_timeout_s: float = 60.0
    """For one compressed frame, the start of the process included."""


@dataclass(frozen=True)
class ReadOptions:
    """How one scan is to be read.

    Parameters
    ----------
    series_uid
        SeriesInstanceUID to read; None lets the reader choose.
    limits
        Sizes, counts and seconds.
    allow_repairs
        Any of `REPAIRS`; what is not named here is refused instead of repaired.
    on_progress
        Called with a fraction from 0 to 1 while reading, from the calling thread.
    scratch_root
        Folder in which a folder for inflated data is made and removed; None takes the system's.

    Raises
    ------
    ValueError
        If a repair is not known.
    """

    series_uid: str | None = None
    limits: ReadLimits = field(default_factory=ReadLimits)
    allow_repairs: frozenset[str] = frozenset()
    on_progress: Callable[[float], None] | None = None
    scratch_root: Path | None = None

    def __post_init__(self) -> None:
        if unknown := self.allow_repairs - REPAIRS:
            raise ValueError(f"allow_repairs knows {sorted(REPAIRS)}, got {sorted(unknown)}")

    def report_progress(self, fraction: float) -> None:
        """Tell the caller how far the reading is, if it asked."""
        if self.on_progress is not None:
            self.on_progress(min(1.0, max(0.0, fraction)))
