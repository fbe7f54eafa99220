"""The door: one answer in any of its forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pydicom.dataset import Dataset

from app.imaging.dicom_headers import pydicom_silenced
from app.reporting.errors import ResultUnavailable, needs_dicom
from app.reporting.fhir import fhir_bundle
from app.reporting.material import Material, Report
from app.reporting.originals import Originals
from app.reporting.tables import table

Kind = Literal["sr", "seg", "gsps", "ko", "sc", "pdf", "fhir", "csv"]
DicomKind = Literal["sr", "seg", "gsps", "ko", "sc", "pdf"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DICOM_KINDS: tuple[DicomKind, ...] = get_args(DicomKind)

MEDIA_TYPES: dict[Kind, str] = {
    **dict.fromkeys(("sr", "seg", "gsps", "ko", "sc"), "application/dicom"),
    "pdf": "application/pdf",
    "fhir": "application/fhir+json",
    "csv": "text/csv; charset=utf-8",
}
_FILE_NAMES: dict[Kind, str] = {
    **{kind: f"{kind}.dcm" for kind in ("sr", "seg", "gsps", "ko", "sc")},
    "pdf": "report.pdf",
    "fhir": "fhir.json",
    "csv": "nodules.csv",
}


@dataclass(frozen=True)
class Rendered:
    """One form of an answer."""

    media_type: str
    file_name: str
    """Says which form it is, and nothing of the patient."""
    body: bytes


def make_result(kind: Kind, report: Report, originals: Originals) -> Rendered:
    """One form of an answer as a file; the same answer gives the same bytes.

    Parameters
    ----------
    kind
        One of `KINDS`. ``pdf`` is the document itself; inside DICOM it comes from `dicom_objects`.
    report
        What was found, what it means by the guidelines, and when.
    originals
        The images it is about.

    Raises
    ------
    ResultUnavailable
        ``needs_dicom`` for sr, seg, gsps, ko and sc of a scan that is no DICOM; ``no_nodules`` for seg, gsps and ko;
        ``boxes_only`` for seg of a model that has a detector only.
    ScanError
        The images are not those that were analysed.
    """
    material = Material(report, originals)
    return Rendered(MEDIA_TYPES[kind], _FILE_NAMES[kind], _body(kind, material))


def dicom_objects(report: Report, originals: Originals, kinds: Sequence[DicomKind] = DICOM_KINDS) -> list[Dataset]:
    """The DICOM objects of an answer, for the study of its images; their UIDs are the same each time.

    Those that cannot be empty (seg, gsps, ko) are left out where there is no nodule. Each has its ``file_meta`` and can
    be written or sent as it is.

    Raises
    ------
    ResultUnavailable
        ``needs_dicom``.
    ScanError
        The images are not those that were analysed.
    """
    material = Material(report, originals)
    made = []
    for kind in kinds:
        try:
            made.append(_object(kind, material))
        except ResultUnavailable as unavailable:
            if unavailable.code not in {"no_nodules", "boxes_only"}:
                raise
    return made


def _body(kind: Kind, material: Material) -> bytes:
    if kind == "csv":
        return table(material.report).encode()
    if kind == "fhir":
        return fhir_bundle(material)
    if kind == "pdf":
        from app.reporting.pdf import pdf  # noqa: PLC0415 - reportlab takes a while to import

        return pdf(material)
    dataset = _object(kind, material)
    from app.reporting.dicom_objects import in_bytes  # noqa: PLC0415

    with pydicom_silenced():
        return in_bytes(dataset)


def _object(kind: DicomKind, material: Material) -> Dataset:
    if not material.originals.is_dicom:
        raise needs_dicom(kind)
    make = _makers()[kind]
    _ = material.originals.images  # read before pydicom is silenced for all threads
    if kind in ("sc", "pdf") and material.findings.nodules:
        _ = material.originals.volume
    with pydicom_silenced():
        return make(material)


def _makers() -> dict[DicomKind, Callable[[Material], Dataset]]:
    """Imported here: highdicom takes seconds."""
    from app.reporting.encapsulated import encapsulated_pdf  # noqa: PLC0415
    from app.reporting.presentation import key_objects, presentation_state  # noqa: PLC0415
    from app.reporting.segmentation import segmentation  # noqa: PLC0415
    from app.reporting.structured_report import structured_report  # noqa: PLC0415
    from app.reporting.summary_page import secondary_capture  # noqa: PLC0415

    return {
        "sr": structured_report,
        "seg": segmentation,
        "gsps": presentation_state,
        "ko": key_objects,
        "sc": secondary_capture,
        "pdf": encapsulated_pdf,
    }
