"""Type of the PDF: its styles, and text that stays text."""

from __future__ import annotations

from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Paragraph

WIDTH = A4[0] - 30 * mm
INK, PALE, RULE = colors.HexColor("#1a1a1a"), colors.HexColor("#f0f0f0"), colors.HexColor("#9a9a9a")
TEXT = ParagraphStyle("text", fontName="Helvetica", fontSize=8.5, leading=11, textColor=INK)
SMALL = ParagraphStyle("small", TEXT, fontSize=7, leading=8.6)
CELL = ParagraphStyle("cell", TEXT, fontSize=7.5, leading=9)
HEADING = ParagraphStyle("heading", CELL, fontName="Helvetica-Bold")
SECTION = ParagraphStyle("section", HEADING, keepWithNext=1)
TITLE = ParagraphStyle("title", TEXT, fontName="Helvetica-Bold", fontSize=15, leading=19)
RESULT = ParagraphStyle("result", TEXT, fontName="Helvetica-Bold", fontSize=10.5, leading=14)
WARNING = ParagraphStyle("warning", RESULT, alignment=1)


def paragraph(text: object, style: ParagraphStyle = TEXT) -> Paragraph:
    """Text as it is: reportlab would take what looks like markup in a header for an order, to load a picture even."""
    return Paragraph(escape(printable(text)), style)


def printable(text: object) -> str:
    """Question marks for what the fonts do not know."""
    return str(text).encode("cp1252", "replace").decode("cp1252")


def tight(padding_pt: float) -> list[tuple[object, ...]]:
    """Little space above and below the lines of a table."""
    whole = ((0, 0), (-1, -1), padding_pt)
    return [("TOPPADDING", *whole), ("BOTTOMPADDING", *whole)]
