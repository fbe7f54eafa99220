"""Which series of a study is analysed, by a rule that the report states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from app.imaging.acceptance import Notice, SeriesSummary
from app.imaging.dicom_geometry import normal_of, valid_position
from app.imaging.kernels import is_sharp_kernel
from app.imaging.read_options import ReadLimits
from app.imaging.slice_header import SliceHeader

RULE = (
    "200 mm or more covered, then thinnest slices, then original over derived images, then most slices, "
    "then soft over sharp kernel"
)
"""How one of several series that fit is preferred, in words for the report; `preference` in code."""
LUNG_LENGTH_MM = 200.0

_REFORMATS = frozenset({"MIP", "MINIP", "MPR", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "VOLUME_RENDER", "SCREEN SAVE"})
_OTHER_BODY_PARTS = frozenset(
    {"HEAD", "BRAIN", "SKULL", "FACE", "SINUS", "ORBIT", "EAR", "CSPINE", "LSPINE", "PELVIS", "HIP", "KNEE", "LEG",
     "ANKLE", "FOOT", "ARM", "ELBOW", "WRIST", "HAND", "EXTREMITY"}
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """Slices of one SeriesInstanceUID, in the order received."""

    uid: str
    slices: tuple[SliceHeader, ...]
    localizers: tuple[SliceHeader, ...] = ()
    """Localizer images stored in the same series; never part of the volume."""

    @property
    def first(self) -> SliceHeader:
        """A header that speaks for what the whole series shares."""
        return self.slices[0] if self.slices else self.localizers[0]


def group_series(headers: Iterable[SliceHeader]) -> list[Series]:
    """Group slices by SeriesInstanceUID, ordered by UID; localizer images are set apart."""
    groups: dict[str, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(header.series_instance_uid or "", []).append(header)
    return [
        Series(
            uid,
            tuple(h for h in groups[uid] if "LOCALIZER" not in h.image_type),
            tuple(h for h in groups[uid] if "LOCALIZER" in h.image_type),
        )
        for uid in sorted(groups)
    ]


def rejection_reasons(series: Series, limits: ReadLimits) -> tuple[Notice, ...]:
    """Why a series cannot be analysed, judged from its headers; empty when it can."""
    first, count = series.first, len(series.slices)
    if first.modality != "CT":
        return (Notice("modality", "Modality is not CT.", {"modality": first.modality}),)
    if not any(h.pixel_format for h in (*series.slices, *series.localizers)):
        return (Notice("no_pixels", "The objects hold no image."),)
    if not series.slices:
        return (Notice("localizer", "ImageType says LOCALIZER."),)
    reasons = []
    if reformat := sorted(_REFORMATS.intersection(first.image_type)):
        reasons.append(
            Notice("reformat", "ImageType names a reformatted or projected image.", {"image_type": reformat})
        )
    if first.rescale_type not in (None, "HU"):
        reasons.append(Notice("not_hounsfield", "RescaleType is not HU."))
    normal = normal_of(first)
    if normal is not None and np.abs(normal).argmax() != 2:
        said = [round(float(value), 3) for value in normal]
        reasons.append(Notice("not_axial", "The slices are not axial.", {"normal_lps": said}))
    if count < limits.min_slices:
        message = f"{count} slices; {limits.min_slices} are needed."
        reasons.append(Notice("too_few_slices", message, {"slices": count, "min_slices": limits.min_slices}))
    elif (extent_mm := _extent_mm(series)) is not None and extent_mm < limits.min_coverage_mm:
        values = {"extent_mm": round(extent_mm, 1), "min_coverage_mm": limits.min_coverage_mm}
        reasons.append(Notice("too_short", "The slices cover too little of the body to show a lung.", values))
    return tuple(reasons)


def is_other_body_part(series: Series) -> bool:
    """Whether BodyPartExamined names a part without lungs."""
    return series.first.body_part in _OTHER_BODY_PARTS


def preference(series: Series) -> tuple[bool, float, bool, int, bool]:
    """Sort key of `RULE`: the smallest is preferred."""
    return (
        (_extent_mm(series) or 0.0) < LUNG_LENGTH_MM,
        round(thickness_mm(series), 1),
        "DERIVED" in series.first.image_type,
        -len(series.slices),
        is_sharp_kernel(series.first.kernel) is True,
    )


def thickness_mm(series: Series) -> float:
    """SliceThickness or the mean distance between slices, whichever is larger."""
    distance_mm = (_extent_mm(series) or 0.0) / max(1, len(series.slices) - 1)
    return max(distance_mm, series.first.slice_thickness_mm or 0.0)


def summary(series: Series, spacing_zyx_mm: tuple[float, float, float] | None = None) -> SeriesSummary:
    """What the report says about a series."""
    first = series.first
    return SeriesSummary(
        series_instance_uid=series.uid or None,
        modality=first.modality,
        slice_count=len(series.slices) or len(series.localizers),
        rows=first.pixel_format.rows if first.pixel_format else None,
        columns=first.pixel_format.columns if first.pixel_format else None,
        spacing_zyx_mm=spacing_zyx_mm,
        slice_thickness_mm=first.slice_thickness_mm,
        convolution_kernel=first.kernel,
        transfer_syntax_uid=first.transfer_syntax.uid if first.transfer_syntax else None,
    )


def _extent_mm(series: Series) -> float | None:
    """Largest distance between slice corners along one patient axis; None when a position is not valid."""
    corners = [valid_position(header) for header in series.slices]
    if len(corners) < 2 or None in corners:
        return None
    return float(np.ptp(np.asarray(corners), axis=0).max())
