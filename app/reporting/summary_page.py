"""One picture that any viewer can show: the secondary capture."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from app.inference.findings import DISCLAIMER, Nodule
from app.reporting import wording
from app.reporting.dicom_objects import MANUFACTURER, finished, instance
from app.reporting.material import Material
from app.reporting.views import ORANGE, Chest, font, views

_WIDTH_PX, _MARGIN_PX, _VIEW_PX, _GAP_PX = 1400, 24, 240, 8
_TEXT_PX, _LINE_PX = 17, 26
_MOST_NODULES = 12
_GREY = (200, 200, 200)


def secondary_capture(material: Material) -> Dataset:
    """The summary page as an RGB image in the study."""
    page = summary_page(material)
    dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=material.originals.image(0),
        pixel_array=page,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **instance(material, "sc"),
    )
    dataset.PatientOrientation = []  # several cuts on one page
    dataset.ConversionType = "WSD"
    dataset.BodyPartExamined = "CHEST"
    dataset.BurnedInAnnotation = "NO"  # no patient data are drawn
    dataset.RecognizableVisualFeatures = "NO"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = "Summary of nodules found by a program"
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    return finished(dataset, material, "AI nodule summary")


def summary_page(material: Material) -> NDArray[np.uint8]:
    """(rows, columns, 3) picture: a strip of views for each nodule, up to twelve, with its figures; no patient data."""
    findings = material.findings
    shown = findings.nodules[:_MOST_NODULES]
    foot_lines = _foot_lines(material)
    head, foot, strip = 154, 40 + _LINE_PX * len(foot_lines), _VIEW_PX + 3 * _GAP_PX
    page = Image.new("RGB", (_WIDTH_PX, head + max(1, len(shown)) * strip + foot))
    draw = ImageDraw.Draw(page)
    _write(draw, (_MARGIN_PX, 20), "Lung nodules found by a program", 30)
    _write(draw, (_MARGIN_PX, 62), DISCLAIMER, 22, ORANGE)
    _write_lines(draw, 94, _wrapped(f"{wording.PRELIMINARY} {wording.outcome(findings)}"), "white")
    chest = Chest.of(material.originals.volume) if shown else None
    for row, nodule in enumerate(shown):
        _add_strip(page, chest, nodule, head + row * strip)
    if not shown:
        _write(draw, (_MARGIN_PX, head + 90), "No nodule reached the operating point.", 34)
    _write_lines(draw, page.height - foot + 8, foot_lines, _GREY)
    return np.asarray(page)


def _add_strip(page: Image.Image, chest: Chest | None, nodule: Nodule, top: int) -> None:
    draw, x = ImageDraw.Draw(page), _MARGIN_PX
    draw.line((_MARGIN_PX, top, _WIDTH_PX - _MARGIN_PX, top), fill=(90, 90, 90))
    if chest is not None:
        for picture in views(chest, nodule, _VIEW_PX).values():
            page.paste(picture, (x, top + _GAP_PX))
            x += _VIEW_PX + _GAP_PX
    x += _GAP_PX
    _write(draw, (x, top + 14), f"{nodule.id}, {wording.place(nodule)}", 24)
    _write(draw, (x, top + 46), f"{wording.images(nodule)}", 18)
    for line, text in enumerate(figures(nodule)):
        _write(draw, (x, top + 78 + 26 * line), text, 18, _GREY)


def figures(nodule: Nodule) -> list[str]:
    """What was measured, in lines."""
    volume = "no outline, no volume" if nodule.volume_mm3 is None else f"volume {nodule.volume_mm3:.0f} mm3"
    density = "" if nodule.mean_hu is None else f", mean {nodule.mean_hu:.0f} HU"
    character = wording.character(nodule)
    return [
        f"{nodule.long_axis_mm:.1f} x {nodule.short_axis_mm:.1f} mm, mean {nodule.diameter_mm:.1f} mm",
        f"{volume}{density}",
        f"probability {wording.percent(nodule.probability)}",
        f"malignancy {wording.malignancy(nodule)}",
        *([character] if character else []),
    ]


def _foot_lines(material: Material) -> list[str]:
    findings = material.findings
    left_out = len(findings.nodules) - _MOST_NODULES
    made_by = (
        f"{wording.operating_point(findings)} Model {wording.model(findings)}, sha256 {findings.model.sha256[:16]}, "
        f"{material.made_at:%Y-%m-%d %H:%M} {material.made_at.tzname()}."
    )
    sentences = [
        *([f"{left_out} further nodules: see the structured report."] if left_out > 0 else []),
        f"{wording.meaning_of_probability()} Fourth picture: axial, 50 mm wide. Lung window.",
        wording.meaning_of_malignancy(findings),
        made_by,
    ]
    return [line for sentence in sentences for line in _wrapped(sentence)]


def _wrapped(text: str) -> list[str]:
    """Lines that the page is wide enough for."""
    face, lines = font(_TEXT_PX), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= _WIDTH_PX - 2 * _MARGIN_PX:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write_lines(draw: ImageDraw.ImageDraw, top: int, lines: Sequence[str], fill: str | tuple[int, int, int]) -> None:
    for line, text in enumerate(lines):
        _write(draw, (_MARGIN_PX, top + _LINE_PX * line), text, _TEXT_PX, fill)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size_px: int,
    fill: str | tuple[int, int, int] = "white",
) -> None:
    draw.text(at, text, font=font(size_px), fill=fill)
