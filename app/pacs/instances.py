"""What one received DICOM object is, at a bounded cost: enough to know its series and whether a rule asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from app.imaging import dicom_values as values
from app.imaging.dicom_headers import PARSE_FAULTS, is_dicom, pydicom_silenced
from app.imaging.dicom_values import BudgetSpentError, HeaderBytes, ReadBudget
from app.imaging.transfer_syntax import DEFLATED_LITTLE, TRANSFER_SYNTAXES
from app.pacs.errors import FailureReason, InstanceRefused
from app.pacs.patterns import LONGEST_TEXT
from app.pacs.rules import SeriesFacts

SOP_CLASSES: tuple[UID, ...] = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
"""What is taken in. None of our results is of these classes, so they cannot come back as scans."""
ACCEPTED_SYNTAXES = tuple(uid for uid in TRANSFER_SYNTAXES if uid != DEFLATED_LITTLE)
"""Not deflated: to look into such an object one has to inflate it."""
_HEADER_BYTES = 1 << 20
_MOST_READS = 20_000
_PREAMBLE_BYTES = 132
_LAST_TAG = 0x00280008
_TAGS = [
    0x00080016, 0x00080018, 0x00080060, 0x0008103E, 0x00180015, 0x00180050, 0x0020000D, 0x0020000E, 0x00280008,
]  # fmt: skip


@dataclass(frozen=True)
class Instance:
    """One received object."""

    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_uid: str
    slices: int
    """1, or the frames of an Enhanced image."""
    facts: SeriesFacts

    @property
    def thickness_known(self) -> bool:
        """An Enhanced image states it for each frame, further down; there the reader judges it."""
        return self.sop_class_uid == CTImageStorage


def read_instance(path: Path) -> Instance:
    """Read the identity of a DICOM file.

    Raises
    ------
    InstanceRefused
        Not DICOM, not a CT image, a transfer syntax that is not read, or without its UIDs.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if not is_dicom(head):
        raise InstanceRefused(FailureReason.CANNOT_UNDERSTAND, "The object is not DICOM.", code="not_dicom")
    with pydicom_silenced():
        try:
            syntax, dataset = _parsed(head)
        except (BudgetSpentError, *PARSE_FAULTS):
            dataset = None
    # Raised here, so that the cause, whose text may quote a tag value, is not chained to it.
    if dataset is None:
        raise InstanceRefused(
            FailureReason.CANNOT_UNDERSTAND, "The header of the object is damaged.", code="damaged_header"
        )
    if syntax not in ACCEPTED_SYNTAXES:
        raise InstanceRefused(
            FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED, "The transfer syntax is not read.", code="transfer_syntax"
        )
    return _instance(dataset)


def identity_or_none(path: Path) -> tuple[str, str] | None:
    """SOP class and instance UID of what is refused, to tell the sender which one; None where it has none."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    if not is_dicom(head):
        return None
    with pydicom_silenced():
        try:
            _, dataset = _parsed(head)
            found = values.uid(dataset, 0x00080016), values.uid(dataset, 0x00080018)
        except (BudgetSpentError, *PARSE_FAULTS):
            return None
    return (found[0], found[1]) if found[0] and found[1] else None


def _parsed(head: bytes) -> tuple[str, Dataset]:
    stream = HeaderBytes(head, ReadBudget(_MOST_READS))
    stream.seek(_PREAMBLE_BYTES)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_file_meta)
    uid = values.uid(meta, 0x00020010) or ""
    syntax = TRANSFER_SYNTAXES.get(uid)
    if syntax is None or uid == DEFLATED_LITTLE:
        return uid, Dataset()
    return uid, read_dataset(
        stream,
        is_implicit_VR=syntax.implicit_vr,
        is_little_endian=syntax.little_endian,
        stop_when=_after_frames,
        specific_tags=list(_TAGS),
    )


def _instance(dataset: Dataset) -> Instance:
    study, series, sop_class, sop = (
        values.uid(dataset, tag) for tag in (0x0020000D, 0x0020000E, 0x00080016, 0x00080018)
    )
    if study is None or series is None or sop_class is None or sop is None:
        raise InstanceRefused(
            FailureReason.CANNOT_UNDERSTAND,
            "StudyInstanceUID, SeriesInstanceUID, SOPClassUID or SOPInstanceUID is missing or not valid.",
            code="uids_missing",
        )
    if sop_class not in SOP_CLASSES:
        raise InstanceRefused(
            FailureReason.SOP_CLASS_NOT_SUPPORTED, "Only CT images are taken in.", code="sop_class_not_supported"
        )
    facts = SeriesFacts(
        modality=values.code(dataset, 0x00080060),
        body_part=values.code(dataset, 0x00180015),
        description="/".join(values.strings(dataset, 0x0008103E))[:LONGEST_TEXT] or None,
        slice_thickness_mm=values.number(dataset, 0x00180050),
    )
    return Instance(study, series, sop_class, sop, max(1, values.integer(dataset, 0x00280008) or 1), facts)


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _after_frames(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _LAST_TAG
