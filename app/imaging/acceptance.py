"""The acceptance report: what was received, what was chosen, what was rejected and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.imaging.errors import Value


@dataclass(frozen=True)
class Notice:
    """One remark about the scan: a warning, a repair or a reason for rejection."""

    code: str
    """Stable snake_case identifier."""
    message: str
    """A sentence for a person; names attributes and values, never the patient."""
    values: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class SeriesSummary:
    """What the headers of one series say."""

    series_instance_uid: str | None
    modality: str | None
    slice_count: int
    rows: int | None = None
    columns: int | None = None
    spacing_zyx_mm: tuple[float, float, float] | None = None
    slice_thickness_mm: float | None = None
    convolution_kernel: str | None = None
    transfer_syntax_uid: str | None = None


@dataclass(frozen=True)
class RejectedSeries:
    """A series of the upload that was not analysed."""

    summary: SeriesSummary
    reasons: tuple[Notice, ...]


@dataclass(frozen=True)
class AcceptanceReport:
    """Goes into every result, so that a reader knows what the answer rests on."""

    source_format: str
    """`dicom`, `dicom-enhanced`, `metaimage`, `nifti` or `nrrd`."""
    files_received: int
    files_ignored: tuple[Notice, ...]
    chosen: SeriesSummary
    rejected: tuple[RejectedSeries, ...] = ()
    repairs: tuple[Notice, ...] = ()
    """Only what the caller allowed to be repaired."""
    warnings: tuple[Notice, ...] = ()
