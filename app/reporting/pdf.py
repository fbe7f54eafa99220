"""The report as PDF: what a radiologist reads, or prints, without any other program."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle
from reportlab.platypus import Image as Picture

from app.inference.findings import DISCLAIMER, Nodule
from app.reporting import judgement, wording
from app.reporting.material import Material, key_slice
from app.reporting.pdf_judgement import comparison, guidelines
from app.reporting.pdf_text import (
    CELL,
    HEADING,
    INK,
    PALE,
    RESULT,
    RULE,
    SMALL,
    TITLE,
    WARNING,
    WIDTH,
    paragraph,
    printable,
    tight,
)
from app.reporting.views import Chest, views

_VIEW_PX = 330

_COLUMNS = (
    ("", 6), ("Place", 31), ("Images", 19), ("Long x short, mean (mm)", 24), ("Volume, 95 % (mm³)", 23),
    ("Density (HU), mass", 23), ("Type, margin, signs", 20), ("Probability", 17), ("Malignancy", 17),
)  # fmt: skip
"""Heading and width in mm."""
_MEASURED = (
    "Diameters: long axis and the longest extent across it in the axial slice of largest area, and their mean. "
    "Volume: voxels of the outline; density: mean and extremes of its voxels. The lobe is an estimate. "
    "All measured by the program on its own outline; the marks may be no nodules, "
    "and nodules may be missed."
)


def pdf(material: Material) -> bytes:
    """The report: A4, the table first, then the views of each nodule; as many pages as it takes.

    Characters outside Latin-1 are shown as question marks: the fonts that every reader has know no others.
    """
    out = BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, leftMargin=15 * mm, rightMargin=15 * mm, topMargin=13 * mm, bottomMargin=19 * mm,
        title="Lung nodule report", author="lungnodule", subject=DISCLAIMER, invariant=1,
    )  # fmt: skip
    image = material.originals.image(0) if material.originals.is_dicom else None
    judged = [*comparison(material.report), *guidelines(material.report)]
    story = [*_head(material, image), *_result(material), *_pictures(material), *judged, *_method(material)]
    document.build(story, canvasmaker=_numbered(_foot(material, image)))
    return out.getvalue()


def _head(material: Material, image: Dataset | None) -> list[Flowable]:
    told = _subject(image) if image is not None else [("Patient", "not known: the scan was no DICOM")]
    findings = material.findings
    z, y, _ = findings.grid.spacing_zyx_mm
    told += [
        ("Voxels", f"{findings.grid.shape_zyx[0]} slices, {z:.2f} mm apart, pixels {y:.2f} mm"),
        ("Analysed", f"{material.made_at:%Y-%m-%d %H:%M} {material.made_at.tzname()}"),
    ]
    cells = [[paragraph(name, HEADING), paragraph(value, CELL)] for name, value in told]
    cells += [[paragraph(""), paragraph("")]] * (len(cells) % 2)
    half = len(cells) // 2
    rows = [[*cells[n], *cells[n + half]] for n in range(half)]
    table = Table(rows, [24 * mm, WIDTH / 2 - 24 * mm] * 2)
    table.setStyle(TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *tight(1.2)]))
    banner = Table([[paragraph(f"{DISCLAIMER} {wording.PRELIMINARY}", WARNING)]], [WIDTH])
    banner.setStyle(TableStyle([("BOX", (0, 0), (-1, -1), 1, INK), ("BACKGROUND", (0, 0), (-1, -1), PALE)]))
    title = paragraph("Chest CT: lung nodules found by a program", TITLE)
    return [title, Spacer(0, 2 * mm), banner, Spacer(0, 2 * mm), table, Spacer(0, 2 * mm)]


def _subject(image: Dataset) -> list[tuple[str, str]]:
    """Whose scan it is, from its own header; the report goes back to where that came from."""
    return [
        ("Patient", str(image.PatientName).replace("^", " ").strip() or "-"),
        ("Patient ID", str(image.PatientID or "-")),
        ("Born, sex", f"{_date(image.PatientBirthDate)}, {image.PatientSex or '-'}"),
        ("Study", f"{_date(image.StudyDate)} {image.get('StudyDescription', '') or ''}"),
        ("Accession", str(image.AccessionNumber or "-")),
        ("Series", str(image.get("SeriesDescription", "") or image.get("SeriesNumber", "") or "-")),
    ]


def _date(value: object) -> str:
    digits = str(value or "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}" if len(digits) == 8 else digits or "-"


def _result(material: Material) -> list[Flowable]:
    findings = material.findings
    flow: list[Flowable] = [paragraph(wording.outcome(findings), RESULT)]
    if material.report.assessment is not None:
        flow.append(paragraph(judgement.exam_words(material.report.assessment), HEADING))
    flow.append(Spacer(0, 1.5 * mm))
    if findings.nodules:
        rows = [[paragraph(heading, HEADING) for heading, _ in _COLUMNS], *map(_row, findings.nodules)]
        table = Table(rows, [width * mm for _, width in _COLUMNS], repeatRows=1)
        table.setStyle(
            TableStyle(
                [
                    ("LINEBELOW", (0, 0), (-1, 0), 0.8, INK),
                    ("LINEBELOW", (0, 1), (-1, -1), 0.25, RULE),
                    ("BACKGROUND", (0, 0), (-1, 0), PALE),
                    ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 2),
                    ("RIGHTPADDING", (0, 0), (-1, -1), 2),
                    *tight(1.5),
                ]
            )
        )
        flow.append(table)
    notices = [notice.message for notice in (*findings.acceptance.warnings, *findings.warnings)]
    flow += [paragraph(f"Note: {message}", SMALL) for message in notices]
    return [*flow, Spacer(0, 2.5 * mm)]


def _row(nodule: Nodule) -> list[Paragraph]:
    cells = (
        nodule.id.removeprefix("nodule-"),
        wording.whereabouts(nodule),
        wording.images(nodule),
        f"{nodule.long_axis_mm:.1f} x {nodule.short_axis_mm:.1f}, {nodule.diameter_mm:.1f}",
        _volume(nodule),
        _density(nodule),
        wording.character(nodule) or "-",
        wording.percent(nodule.probability),
        wording.malignancy(nodule),
    )
    return [paragraph(cell, CELL) for cell in cells]


def _volume(nodule: Nodule) -> str:
    if nodule.volume_mm3 is None:
        return "-"
    low, high = nodule.volume_interval_mm3 or (None, None)
    return f"{nodule.volume_mm3:.0f}" + ("" if low is None or high is None else f" ({low:.0f} to {high:.0f})")


def _density(nodule: Nodule) -> str:
    told = "-" if nodule.mean_hu is None else f"{nodule.mean_hu:.0f}"
    if nodule.min_hu is not None and nodule.max_hu is not None:
        told += f" ({nodule.min_hu:.0f} to {nodule.max_hu:.0f})"
    return told if nodule.mass_mg is None else f"{told}, {nodule.mass_mg:.0f} mg"


def _pictures(material: Material) -> list[Flowable]:
    """A strip for each nodule: axial, coronal and sagittal with its place, and the axial cut from near."""
    if not material.findings.nodules:
        return []
    chest = Chest.of(material.originals.volume)
    return [_strip(chest, nodule) for nodule in material.findings.nodules]


def _strip(chest: Chest, nodule: Nodule) -> Flowable:
    side = WIDTH / 4 - 1.5 * mm
    pictures = []
    for picture in views(chest, nodule, _VIEW_PX).values():
        png = BytesIO()
        picture.save(png, "PNG")
        png.seek(0)
        pictures.append(Picture(png, side, side))
    box = key_slice(nodule)
    shown = "" if box is None else f", axial: {_slice_name(box.instance_number, box.frame_number, box.index_z)}"
    x, y, z = nodule.center_lps_mm
    caption = (
        f"{nodule.id}, {wording.place(nodule)}{shown}; centre LPS {x:.1f}, {y:.1f}, {z:.1f} mm; "
        f"{nodule.diameter_mm:.1f} mm. Axial, coronal, sagittal; axial 50 mm wide. Lung window."
    )
    table = Table([pictures], [WIDTH / 4] * 4)
    table.setStyle(TableStyle([("ALIGN", (0, 0), (-1, -1), "CENTER"), *tight(0)]))
    return KeepTogether([paragraph(caption, SMALL), Spacer(0, 0.8 * mm), table, Spacer(0, 2 * mm)])


def _slice_name(instance_number: int | None, frame_number: int | None, index_z: int) -> str:
    if frame_number is not None:
        return f"frame {frame_number}"
    return f"slice {index_z} from 0" if instance_number is None else f"image {instance_number}"


def _method(material: Material) -> list[Flowable]:
    findings = material.findings
    made_by = (
        f"Model {wording.model(findings)} (sha256 of its manifest {findings.model.sha256}), program "
        f"{material.program_version}, on {findings.execution_provider}. {wording.operating_point(findings)}"
    )
    lines = (made_by, wording.meaning_of_probability(), wording.meaning_of_malignancy(findings), _MEASURED)
    return [KeepTogether([paragraph("Method", HEADING), *(paragraph(line, SMALL) for line in lines)])]


def _foot(material: Material, image: Dataset | None) -> list[str]:
    told = [] if image is None else [str(image.PatientName or "").replace("^", " ").strip(), str(image.PatientID or "")]
    who = "".join(f"{name}. " for name in (", ".join(filter(None, told)),) if name)
    return [
        f"{who}{DISCLAIMER} {wording.PRELIMINARY}",
        f"{wording.model(material.findings)}, {material.made_at:%Y-%m-%d %H:%M} {material.made_at.tzname()}",
    ]


def _numbered(foot: Sequence[str]) -> type[Canvas]:
    """A canvas that writes the foot when it knows how many pages there are."""

    class Numbered(Canvas):  # type: ignore[misc]
        def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401
            super().__init__(*args, **named)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                self.setFont("Helvetica", 7)
                self.line(15 * mm, 15 * mm, A4[0] - 15 * mm, 15 * mm)
                for line, text in enumerate(foot):
                    self.drawString(15 * mm, (11.5 - 3.2 * line) * mm, printable(text))
                self.drawRightString(A4[0] - 15 * mm, 11.5 * mm, f"Page {number} of {len(self._pages)}")
                super().showPage()
            super().save()

    return Numbered
