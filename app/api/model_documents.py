"""What lies beside a model: its card, its free-response curve, the reports of its evaluation."""

from __future__ import annotations

import html
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from app.api.errors import NotFound
from app.inference.manifest import ModelManifest

MEDIA_TYPES = {
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".html": "text/html; charset=utf-8",
}
"""What is shown of a folder of reports."""

HTML_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""A report's HTML is read, never run: no script, no form, no origin, nothing from elsewhere."""

MOST_REPORTS, MOST_BYTES = 200, 32 << 20

_CARD, _REPORTS = "MODEL_CARD.md", "reports"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TITLE_BYTES = 4096
_POINT = re.compile(r"detection_sensitivity_at_(\d+(?:\.\d+)?)_fp_per_scan")
_CPM = "detection_cpm"


class FrocPoint(BaseModel):
    """One point of the curve."""

    fp_per_scan: float = Field(description="False marks for each scan.")
    sensitivity: float = Field(description="Share of the nodules that are found, 0 to 1.")
    ci95: tuple[float, float] | None = Field(description="95 % interval; null where none was measured.")


class Froc(BaseModel):
    """The free-response curve as it was measured when the model was made."""

    points: list[FrocPoint] = Field(description="By rising false marks; empty where the manifest has none.")
    cpm: float | None = Field(description="Mean of the seven sensitivities from 1/8 to 8 false marks a scan.")
    data: str | None = Field(description="What it was measured on.")
    n: int | None = Field(description="Nodules of that data.")


class ReportEntry(BaseModel):
    """One report."""

    name: str = Field(description="Of the file.")
    title: str = Field(description="First heading of a text, title of a page, else the name.")
    media_type: str = Field(description="What it is sent as.")
    size: int = Field(description="Bytes.")


class ReportList(BaseModel):
    """The reports of a version."""

    reports: list[ReportEntry] = Field(description="By name.")


@dataclass(frozen=True)
class Document:
    """A file as it is sent."""

    media_type: str
    body: bytes


def froc_of(manifest: ModelManifest) -> Froc:
    """The curve in the manifest's own metrics: of the first data that has one, since curves are not to be mixed."""
    points = [(float(match[1]), metric) for metric in manifest.metrics if (match := _POINT.fullmatch(metric.name))]
    told = next((metric for _, metric in points), None)
    found = {marks: metric for marks, metric in points if told and metric.data == told.data}
    cpm = next((m for m in manifest.metrics if m.name == _CPM and told and m.data == told.data), None)
    return Froc(
        points=[
            FrocPoint(fp_per_scan=marks, sensitivity=metric.value, ci95=metric.ci95)
            for marks, metric in sorted(found.items())
        ],
        cpm=cpm.value if cpm else None,
        data=told.data if told else None,
        n=told.n if told else None,
    )


def card_of(folder: Path) -> Document:
    """The model card.

    Raises
    ------
    NotFound
        ``no_card``.
    """
    body = _content(folder / _CARD)
    if body is None:
        raise NotFound("This version has no model card.", code="no_card")
    return Document(MEDIA_TYPES[".md"], body)


def reports_of(folder: Path) -> ReportList:
    """What lies in the version's folder of reports and can be shown; links are passed over."""
    try:
        names = sorted(path.name for path in (folder / _REPORTS).iterdir())
    except OSError:
        names = []
    entries = [_entry(folder / _REPORTS / name) for name in names if _is_report(name)]
    return ReportList(reports=[entry for entry in entries if entry is not None][:MOST_REPORTS])


def report_of(folder: Path, name: str) -> Document:
    """One report.

    Raises
    ------
    NotFound
        ``unknown_report``, with the names there are.
    """
    body = _content(folder / _REPORTS / name) if _is_report(name) else None
    if body is None:
        available = [entry.name for entry in reports_of(folder).reports]
        raise NotFound("This version has no such report.", code="unknown_report", values={"available": available})
    return Document(MEDIA_TYPES[Path(name).suffix.lower()], body)


def _is_report(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and Path(name).suffix.lower() in MEDIA_TYPES


def _entry(path: Path) -> ReportEntry | None:
    size = _size(path)
    if size is None:
        return None
    kind = MEDIA_TYPES[path.suffix.lower()]
    return ReportEntry(name=path.name, title=_title(path), media_type=kind.partition(";")[0], size=size)


def _title(path: Path) -> str:
    if path.suffix.lower() not in (".md", ".html"):
        return path.name
    try:
        with path.open("rb") as stream:
            head = stream.read(_TITLE_BYTES).decode("utf-8", "replace")
    except OSError:
        return path.name
    if path.suffix.lower() == ".html":
        titled = re.search(r"<title>([^<]+)</title>", head)
        return html.unescape(titled[1]).strip() if titled else path.name
    headings = [line.lstrip("# ").strip() for line in head.splitlines() if line.startswith("#")]
    return next(filter(None, headings), path.name)


def _size(path: Path) -> int | None:
    """Bytes of a plain file of a size that is sent; None for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES else None


def _content(path: Path) -> bytes | None:
    if _size(path) is None:
        return None
    try:
        return path.read_bytes()
    except OSError:
        return None
