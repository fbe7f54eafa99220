"""A CT image without its patient: its header by the table of `app.imaging.confidentiality_profile`, its pixels as is.

Everything is written anew: preamble, file meta, every element that the table keeps. What is behind the pixel data is
left out. Only the bytes of the pixel data element are copied. What was taken out and is needed to give results back to
the patient is returned as an `Identity`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from app.imaging.confidentiality_profile import (
    BASIC_PROFILE,
    DATES_AND_TIMES,
    FORMS,
    METHOD_CODES,
    NUMBERS,
    PATIENT_CHARACTERISTICS,
    TEXT_FORMS,
    Action,
)
from app.imaging.dicom_headers import PARSE_FAULTS, pydicom_silenced, read_slice_headers
from app.imaging.dicom_values import ReadBudget
from app.imaging.encapsulation import end_of_pixels
from app.imaging.errors import NotDeidentified
from app.imaging.identity import Identity, header_to_restore
from app.imaging.inputs import ScanFile
from app.imaging.pseudonyms import Pseudonyms
from app.imaging.read_options import ReadLimits
from app.imaging.slice_header import SliceHeader, damaged
from app.imaging.transfer_syntax import TransferSyntax

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
METHOD = "lungnodule: PS3.15 E basic profile; what is not listed removed"
IMPLEMENTATION_CLASS_UID = "2.25.172964826430275041262318471012385236143"
_NO_DATE, _NO_TIME = "19000101", "000000"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Retained:
    """What is kept beyond the basic profile."""

    modified_dates: bool = False
    """Dates, moved by the same number of days for the same patient: intervals between scans stay right."""
    patient_characteristics: bool = False
    """Sex, age, size, weight, pregnancy and smoking: risk formulas use the first two."""


def deidentify(
    file: ScanFile, target: Path, scratch: Path, limits: ReadLimits, pseudonyms: Pseudonyms, retained: Retained
) -> Identity:
    """Write a de-identified copy of a CT image.

    Parameters
    ----------
    file
        A DICOM file.
    target
        New file; what is left of it after an error is the caller's to remove.
    scratch
        Folder where a deflated dataset is inflated.
    limits
        Of the reader.
    pseudonyms, retained
        How, and what is spared.

    Raises
    ------
    NotDeidentified
        ``not_ct_image``, ``transfer_syntax``, ``surplus_pixels``; ``burned_in_annotation``: by its header the pixels
        show text.
    UnreadableScan, UploadTooLarge
        Damaged, truncated, without pixels, or over a limit.
    """
    budget = ReadBudget(limits.max_header_reads + limits.header_reads_per_file)
    header = read_slice_headers(file, scratch, limits, budget)[0]
    if header.sop_class_uid not in CT_CLASSES:
        raise NotDeidentified("Only CT images are de-identified; others are not kept.", code="not_ct_image")
    syntax, pixels = header.transfer_syntax, header.pixels
    if syntax is None:
        raise NotDeidentified(
            "The transfer syntax is not read, so the image cannot be de-identified.", code="transfer_syntax"
        )
    if pixels is None:
        raise damaged(header.file, "it has no pixel data", code="no_pixels")
    if _has_surplus(header):
        raise NotDeidentified(
            "The pixel data is longer than its frames, and what is behind them is not known.", code="surplus_pixels"
        )
    head = header.file.read(0, pixels.offset)
    cleaned, identity = _cleaned(header, head, pseudonyms, retained)
    cleaned.file_meta.TransferSyntaxUID = UID(syntax.uid)
    with pydicom_silenced():
        try:
            written = io.BytesIO()
            dcmwrite(written, cleaned, enforce_file_format=True)
        except PARSE_FAULTS:
            written = None
    if written is None:
        raise damaged(header.file, "what is kept of its header cannot be written")
    with target.open("wb") as stream:
        stream.write(written.getvalue())
        _copy_pixels(header, head, stream)
    return identity


def _cleaned(header: SliceHeader, head: bytes, pseudonyms: Pseudonyms, retained: Retained) -> tuple[Dataset, Identity]:
    made = None
    with pydicom_silenced():
        try:
            source = dcmread(io.BytesIO(head), stop_before_pixels=True)
            burned_in = str(source.get("BurnedInAnnotation", "")).strip().upper()
            patient = (
                f"{source.get('IssuerOfPatientID', '')}\x1f{source.get('PatientID', '') or header.study_instance_uid}"
            )
            cleaner = _Cleaner(pseudonyms, retained, patient)
            if burned_in in ("", "NO"):
                made = cleaner.whole(source), Identity(cleaner.uids, header_to_restore(source))
        except PARSE_FAULTS:
            # Told apart from its cause, whose text may quote a tag value.
            burned_in = ""
    if burned_in not in ("", "NO"):
        raise NotDeidentified(
            "BurnedInAnnotation does not say NO: the pixels may show who the patient is. Send images without text.",
            code="burned_in_annotation",
        )
    if made is None:
        raise damaged(header.file, "its header cannot be parsed in full")
    return made


@dataclass
class _Cleaner:
    """Of one file."""

    pseudonyms: Pseudonyms
    retained: Retained
    patient: str = field(repr=False)
    uids: dict[str, str] = field(default_factory=dict, repr=False)

    def whole(self, source: Dataset) -> Dataset:
        """The dataset that is written."""
        made = self.dataset(source)
        made.file_meta = FileMetaDataset()
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        made.file_meta.ImplementationVersionName = "LUNGNODULE"
        made.PatientName, made.PatientID = self._name(), self._number()
        made.PatientIdentityRemoved = "YES"
        made.DeidentificationMethod = METHOD
        chosen = ["basic"]
        chosen += ["modified_dates"] if self.retained.modified_dates else []
        chosen += ["patient_characteristics"] if self.retained.patient_characteristics else []
        made.DeidentificationMethodCodeSequence = [_coded(*METHOD_CODES[name]) for name in chosen]
        made.LongitudinalTemporalInformationModified = "MODIFIED" if self.retained.modified_dates else "REMOVED"
        return made

    def dataset(self, source: Dataset) -> Dataset:
        """A dataset or an item with nothing in it but what has an action."""
        made = Dataset()
        for tag in sorted(source.keys()):
            keyword = "" if tag.is_private else keyword_for_tag(tag)
            action = self._action(keyword)
            if action is None:
                continue
            try:
                element = source[tag]
                new = self._element(element, keyword, action)
            except PARSE_FAULTS:
                continue
            if new is not None:
                made.add(new)
        return made

    def _action(self, keyword: str) -> Action | None:
        if self.retained.modified_dates and keyword in DATES_AND_TIMES:
            return Action.DUMMY
        if self.retained.patient_characteristics and keyword in PATIENT_CHARACTERISTICS:
            return Action.KEEP
        return BASIC_PROFILE.get(keyword)

    def _element(self, element: DataElement, keyword: str, action: Action) -> DataElement | None:
        tag = tag_for_keyword(keyword) or element.tag
        allowed = dictionary_VR(tag).split(" or ")
        vr = element.VR if element.VR in allowed else allowed[0]
        if action is Action.EMPTY:
            return DataElement(tag, vr, [] if vr == "SQ" else None)
        if action is Action.DUMMY:
            return DataElement(tag, vr, self._dummy(element, keyword, vr))
        if element.VR not in allowed:
            return None
        if vr == "SQ":
            return DataElement(tag, vr, [self.dataset(item) for item in element.value])
        if action is Action.UID:
            return DataElement(tag, vr, [self._uid(value) for value in _several(element) if value])
        return DataElement(tag, vr, element.value) if _has_form(element, keyword) else None

    def _uid(self, original: Any) -> str:  # noqa: ANN401 - what pydicom read
        replaced = self.pseudonyms.uid(str(original))
        self.uids[replaced] = str(original)
        return replaced

    def _dummy(self, element: DataElement, keyword: str, vr: str) -> str | None:
        told = _several(element)
        value = str(told[0]) if told else ""
        if vr in ("DA", "DT", "TM"):
            return self._moment(value, vr)
        if keyword == "ContrastBolusAgent":
            return "CONTRAST" if value.strip() else ""
        if keyword == "StackID":
            return self.pseudonyms.label("stack", f"{self.patient}\x1f{value}")
        return {"PatientName": self._name(), "PatientID": self._number()}.get(keyword, "REMOVED")

    def _moment(self, value: str, vr: str) -> str | None:
        if not self.retained.modified_dates:
            return {"DA": _NO_DATE, "TM": _NO_TIME, "DT": _NO_DATE + _NO_TIME}[vr]
        if not value or FORMS[vr].fullmatch(value) is None:
            return None
        if vr == "TM":
            return value
        day = datetime.strptime(value[:8], "%Y%m%d") - timedelta(days=self.pseudonyms.days_back(self.patient))  # noqa: DTZ007
        return f"{day:%Y%m%d}{value[8:]}"

    def _name(self) -> str:
        return f"DEIDENTIFIED^{self._number()}"

    def _number(self) -> str:
        return self.pseudonyms.label("patient", self.patient)


def _several(element: DataElement) -> list[Any]:
    if element.is_empty:
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _has_form(element: DataElement, keyword: str) -> bool:
    """Whether a kept value is what its VR, or for the few texts its attribute, demands: so it cannot be a sentence."""
    values = _several(element)
    if element.VR in NUMBERS:
        return all(isinstance(value, (int, float)) for value in values)
    form = TEXT_FORMS.get(keyword) or FORMS.get(element.VR)
    return form is not None and all(form.fullmatch(str(value)) is not None for value in values)


def _coded(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _copy_pixels(header: SliceHeader, head: bytes, out: BinaryIO) -> None:
    """The element of the pixel data, byte for byte as it is in the file."""
    pixels = header.pixels
    if pixels is None:
        return
    start = pixels.offset - _element_head_bytes(head, header.transfer_syntax)
    end = end_of_pixels(header) if pixels.length is None else pixels.offset + pixels.length
    if end > header.file.size:
        raise damaged(header.file, "its pixel data ends early", code="truncated")
    with header.file.path.open("rb") as stream:
        stream.seek(header.file.offset + start)
        left = end - start
        while left > 0:
            piece = stream.read(min(left, _CHUNK))
            if not piece:
                raise damaged(header.file, "its pixel data ends early", code="truncated")
            out.write(piece)
            left -= len(piece)


def _has_surplus(header: SliceHeader) -> bool:
    """Whether there are bytes in native pixel data that belong to no frame."""
    form, pixels = header.pixel_format, header.pixels
    if form is None or pixels is None or pixels.length is None:
        return False
    expected = form.frame_bytes * (header.samples_per_pixel or 1) * header.frame_count
    return pixels.length > expected + expected % 2


def _element_head_bytes(head: bytes, syntax: TransferSyntax | None) -> int:
    """8 or 12 bytes of tag, VR and length come before the value."""
    tag = bytes.fromhex("e07f1000" if syntax is None or syntax.little_endian else "7fe00010")
    return 8 if head[-8:-4] == tag else 12
