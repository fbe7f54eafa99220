"""What the PDF says of risk, guidelines and the prior."""

from __future__ import annotations

from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Spacer

from app.reporting import judgement
from app.reporting.assessment import Assessment
from app.reporting.material import Report
from app.reporting.pdf_text import SECTION, SMALL, paragraph


def guidelines(report: Report) -> list[Flowable]:
    """Categories, what they rest on and lack, and the Brock probabilities with what they mean."""
    assessment = report.assessment
    if assessment is None:
        return []
    exam = assessment.lung_rads
    flow: list[Flowable] = [
        paragraph("Risk and guidelines", SECTION),
        paragraph(f"Exam, {judgement.category_words(exam)}. {judgement.reason_words(exam)}".strip(), SMALL),
    ]
    for names, lines in _alike(assessment).values():
        flow.append(paragraph(", ".join(names), SECTION))
        flow += [paragraph(line, SMALL) for line in lines]
    meaning = judgement.meaning_of_brock(assessment)
    flow += [paragraph(line, SMALL) for line in ([meaning] if meaning else [])]
    flow += [paragraph(f"Note: {note}", SMALL) for note in assessment.notes]
    return [*flow, Spacer(0, 2 * mm)]


def _alike(assessment: Assessment) -> dict[tuple[str, ...], tuple[list[str], list[str]]]:
    """Nodules of which the same is said are told together."""
    told: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for nodule in assessment.nodules:
        lines = [
            *(f"{judgement.category_words(a)}. {judgement.reason_words(a)}".strip() for a in nodule.guidelines),
            "; ".join(judgement.brock_words(risk) for risk in nodule.brock),
        ]
        told.setdefault(tuple(lines), ([], lines))[0].append(nodule.nodule_id)
    return told


def comparison(report: Report) -> list[Flowable]:
    """What became of each nodule since the prior; nothing without one."""
    compared = report.comparison
    if compared is None:
        return []
    lines = judgement.comparison_words(compared, report.findings.nodules)
    return [
        paragraph(judgement.comparison_heading(compared), SECTION),
        *(paragraph(line, SMALL) for line in lines or ["No nodule in either scan."]),
        Spacer(0, 2 * mm),
    ]
