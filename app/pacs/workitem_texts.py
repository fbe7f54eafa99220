"""What a performer says of a workitem: how far it is, what was performed, why it was given up (PS3.4 CC.2.5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydicom.dataset import Dataset

DISCONTINUED = {
    "cancel_requested": ("110500", "Doctor canceled procedure"),
    "input_missing": ("110523", "Object Set incomplete"),
    "pacs_http_404": ("110523", "Object Set incomplete"),
    "no_ct_image": ("110522", "Object Types not supported"),
    "needs_dicom": ("110522", "Object Types not supported"),
    "unsupported_series": ("110522", "Object Types not supported"),
}
"""Of CID 9300 (scheme DCM), by code of ours; anything else is the next."""
_UNSPECIFIED = ("110513", "Discontinued for unspecified reason")
_STATION = ("LUNGNODULE", "99LUNGNODULE", "lungnodule")
_DETECTION = ("110004", "DCM", "Computer Aided Detection")


def progress(percent: float, description: str) -> Dataset:
    """How far it is."""
    item = Dataset()
    item.ProcedureStepProgress = f"{percent:.0f}"
    item.ProcedureStepProgressDescription = description
    return _with("ProcedureStepProgressInformationSequence", item)


def discontinued(code: str, at: float) -> Dataset:
    """That it was given up, when and why."""
    item = Dataset()
    item.ProcedureStepCancellationDateTime = _moment(at)
    item.ReasonForCancellation = f"lungnodule: {code}"
    value, meaning = DISCONTINUED.get(code, _UNSPECIFIED)
    item.ProcedureStepDiscontinuationReasonCodeSequence = [_coded(value, "DCM", meaning)]
    return _with("ProcedureStepProgressInformationSequence", item)


def performed(objects: Sequence[Dataset], url: str, began_at: float, ended_at: float) -> Dataset:
    """What was made, and where it is to be had: under the DICOMweb root ``url``."""
    item = Dataset()
    item.PerformedStationNameCodeSequence = [_coded(*_STATION)]
    item.PerformedWorkitemCodeSequence = [_coded(*_DETECTION)]
    item.PerformedProcedureStepStartDateTime = _moment(began_at)
    item.PerformedProcedureStepEndDateTime = _moment(ended_at)
    item.PerformedProcedureStepDescription = "Lung nodules. Research use only, not for diagnosis."
    item.OutputInformationSequence = [_output(one, url) for one in objects]
    changes = _with("UnifiedProcedureStepPerformedProcedureSequence", item)
    changes.update(progress(100, "results are stored"))
    return changes


def _output(one: Dataset, url: str) -> Dataset:
    reference, where, made = Dataset(), Dataset(), Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    where.RetrieveURL = f"{url.rstrip('/')}/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
    made.TypeOfInstances = "DICOM"
    made.StudyInstanceUID, made.SeriesInstanceUID = one.StudyInstanceUID, one.SeriesInstanceUID
    made.ReferencedSOPSequence = [reference]
    made.WADORSRetrievalSequence = [where]
    return made


def _with(keyword: str, item: Dataset) -> Dataset:
    changes = Dataset()
    setattr(changes, keyword, [item])
    return changes


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S+0000")
