"""Enhanced multi-frame CT: each frame's attributes from the shared and per-frame functional groups.

PS3.3 C.7.6.16; a macro is looked for in the frame's own groups first, then in the shared ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from app.imaging import dicom_values as values
from app.imaging.dicom_values import ReadBudget
from app.imaging.slice_header import SliceHeader, damaged

_SHARED, _PER_FRAME = 0x52009229, 0x52009230
FUNCTIONAL_GROUPS = (_SHARED, _PER_FRAME)

_PIXEL_MEASURES = 0x00289110
_PLANE_POSITION = 0x00209113
_PLANE_ORIENTATION = 0x00209116
_PIXEL_VALUE_TRANSFORMATION = 0x00289145
_CT_FRAME_TYPE = 0x00189329
_CT_RECONSTRUCTION = 0x00189314
_CT_ACQUISITION_DETAILS = 0x00189304


@dataclass(frozen=True)
class _Groups:
    """Functional groups of one frame."""

    own: Dataset
    shared: Dataset
    budget: ReadBudget
    parsed_shared: dict[int, Dataset]

    def macro(self, tag: int) -> Dataset:
        """The item of a functional group macro; an empty dataset when it is absent."""
        own = values.items(self.own, tag, self.budget)
        if own:
            return own[0]
        if tag not in self.parsed_shared:
            found = values.items(self.shared, tag, self.budget)
            self.parsed_shared[tag] = found[0] if found else Dataset()
        return self.parsed_shared[tag]


def frames_of(header: SliceHeader, dataset: Dataset, budget: ReadBudget) -> list[SliceHeader]:
    """One header for each frame, or the header itself when it is no CT or has no functional groups.

    Raises
    ------
    UnreadableScan
        ``damaged_header``: NumberOfFrames and the per-frame functional groups disagree.
    """
    frames = values.items(dataset, _PER_FRAME, budget) if header.modality == "CT" else ()
    if not frames:
        return [header]
    if len(frames) != header.frame_count:
        raise damaged(
            header.file, f"NumberOfFrames is {header.frame_count}, functional groups are there for {len(frames)} frames"
        )
    shared: Sequence[Dataset] = values.items(dataset, _SHARED, budget) or [Dataset()]
    parsed_shared: dict[int, Dataset] = {}
    return [
        _frame(header, number, _Groups(own, shared[0], budget, parsed_shared))
        for number, own in enumerate(frames, start=1)
    ]


def _frame(header: SliceHeader, number: int, groups: _Groups) -> SliceHeader:
    measures = groups.macro(_PIXEL_MEASURES)
    transformation = groups.macro(_PIXEL_VALUE_TRANSFORMATION)
    frame_type = values.codes(groups.macro(_CT_FRAME_TYPE), 0x00089007)
    little_endian = header.transfer_syntax is None or header.transfer_syntax.little_endian
    tilt = values.doubles(groups.macro(_CT_ACQUISITION_DETAILS), 0x00181120, little_endian=little_endian)
    return replace(
        header,
        frame_number=number,
        image_type=frame_type or header.image_type,
        kernel=values.short_text(groups.macro(_CT_RECONSTRUCTION), 0x00181210) or header.kernel,
        slice_thickness_mm=values.number(measures, 0x00180050),
        pixel_spacing_mm=values.numbers(measures, 0x00280030),
        position_lps_mm=values.numbers(groups.macro(_PLANE_POSITION), 0x00200032),
        orientation_lps=values.numbers(groups.macro(_PLANE_ORIENTATION), 0x00200037),
        rescale_slope=values.number(transformation, 0x00281053),
        rescale_intercept=values.number(transformation, 0x00281052),
        rescale_type=values.code(transformation, 0x00281054),
        gantry_tilt_deg=tilt[0] if tilt else None,
    )
