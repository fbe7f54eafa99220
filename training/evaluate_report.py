"""An HTML report that stands alone: tables and pictures in one file, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FP_RATES, FrocResult, NoduleOutcome
from app.evaluation.node21 import Node21Score
from app.evaluation.reference import Annotation
from training.metrics import proportion
from training.plots import froc_plot, roc_plot, sensitivity_plot

DISCLAIMER = "Research use only. Not for diagnosis."

SIZES_MM = (3.0, 4.0, 6.0, 8.0, 15.0)
"""Lower edges of the size classes; the last is open."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } caption { text-align: left; font-weight: 600; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; margin: 0 1rem 1rem 0; } img { max-width: 100%; background: white; }
.notice { border-left: 4px solid #c60; padding-left: .75rem; }
"""


@dataclass(frozen=True)
class Picture:
    """A PNG with what it shows in words."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A heading with text, tables and pictures."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


def html_report(title: str, sections: Iterable[Section]) -> str:
    """The report; every text is escaped, every picture is inlined."""
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n<h1>{html.escape(title)}</h1>\n<p class="notice">{html.escape(DISCLAIMER)}</p>\n{body}\n'
        "</body>\n</html>\n"
    )


def estimates_table(caption: str, estimates: Mapping[str, Estimate]) -> Table:
    """Name, figure, 95 % interval, n."""
    return Table(
        caption,
        ("", "value", "95 % interval", "n"),
        tuple(
            (name, number(figure.value), f"{number(figure.low)} to {number(figure.high)}", str(figure.n))
            for name, figure in estimates.items()
        ),
    )


def number(value: float) -> str:
    """Four decimals; words for what is not finite."""
    if math.isnan(value):
        return "not defined"
    return f"{value:.4f}" if math.isfinite(value) else "never reached"


def size_class(nodule: Annotation) -> str:
    """The size class of a nodule by its reference diameter."""
    names = size_classes()
    return names[max(0, int(np.searchsorted(SIZES_MM, nodule.diameter_mm, side="right")) - 1)]


def size_classes() -> tuple[str, ...]:
    """Names of the size classes, by rising size; a nodule under 3 mm counts with the smallest."""
    closed = tuple(f"{low:g}-{high:g} mm" for low, high in pairwise(SIZES_MM))
    return (*closed, f">= {SIZES_MM[-1]:g} mm")


def sensitivity_by(
    result: FrocResult, stratum: Callable[[Annotation], str], fp_per_scan: float = 1.0, order: Sequence[str] = ()
) -> dict[str, Estimate]:
    """Sensitivity of each stratum at the threshold that keeps to a rate of false positives over all scans.

    Parameters
    ----------
    stratum
        Nodule -> name of its class (size, type, ...).
    order
        Classes to list first, also where they hold no nodule.

    Returns
    -------
    Shares with Wilson's interval; n counts nodules.
    """
    threshold = result.curve.threshold_at(fp_per_scan)
    outcomes: dict[str, list[NoduleOutcome]] = {name: [] for name in order}
    for scan in result.scans:
        for outcome in scan.nodules:
            outcomes.setdefault(stratum(outcome.nodule), []).append(outcome)
    return {
        name: proportion(
            sum(outcome.probability is not None and outcome.probability >= threshold for outcome in found), len(found)
        )
        for name, found in outcomes.items()
    }


def froc_section(
    result: FrocResult, title: str = "Detection", kinds: Mapping[Annotation, str] | None = None
) -> Section:
    """FROC, CPM, and sensitivity by size (and by type where the types of the nodules are given)."""
    by_size = sensitivity_by(result, size_class, order=size_classes())
    rates = {f"{rate:g} false positives per scan": result.sensitivities[rate] for rate in FP_RATES}
    tables = [
        estimates_table("Sensitivity by LUNA16's rules", rates | {"CPM (mean of the seven)": result.cpm}),
        estimates_table("Sensitivity by size at 1 false positive per scan", by_size),
    ]
    pictures = [
        Picture(froc_plot({title: (result.curve, result.band)}), "FROC; the band is the 95 % bootstrap interval."),
        Picture(sensitivity_plot(by_size, "Reference diameter"), "Sensitivity by size at 1 false positive per scan."),
    ]
    if kinds is not None:
        by_kind = sensitivity_by(result, lambda nodule: kinds.get(nodule, "unknown"))
        tables.append(estimates_table("Sensitivity by type at 1 false positive per scan", by_kind))
        pictures.append(Picture(sensitivity_plot(by_kind, "Type"), "Sensitivity by type at 1 false positive per scan."))
    marks = sum(scan.n_marks for scan in result.scans)
    counts = (
        f"{len(result.scans)} scans, {result.n_nodules} nodules, {marks} marks; {result.n_hits} nodules hit, "
        f"{result.n_false_positives} false positives at the lowest threshold."
    )
    return Section(title, (counts,), tuple(tables), tuple(pictures))


def node21_section(result: FrocResult, score: Node21Score) -> Section:
    """NODE21's score on CT, labelled as the adaptation that it is, with the ROC of the scans."""
    has_nodule = [bool(scan.nodules) for scan in result.scans]
    # A scan without marks ranks below every mark; the plot needs a finite number for it.
    lowest = min((scan.max_probability for scan in result.scans if scan.n_marks), default=0.0) - 1.0
    scores = [scan.max_probability if scan.n_marks else lowest for scan in result.scans]
    pictures: tuple[Picture, ...] = ()
    if any(has_nodule) and not all(has_nodule):
        pictures = (Picture(roc_plot({"scans": (has_nodule, scores)}), "ROC of scans by their highest probability."),)
    text = (
        "NODE21 is scored on 2-D chest X-rays. On CT this is an adaptation: an image is a scan, its score the highest "
        "probability of its marks, a hit is LUNA16's. The combined score is 0.75 AUROC + 0.25 sensitivity at 0.25 "
        "false positives per scan."
    )
    return Section("NODE21's score, adapted to CT", (text,), (estimates_table("Score", score.by_name()),), pictures)


def write_submission_report(path: Path, result: FrocResult, score: Node21Score, title: str) -> None:
    """The report of one evaluated submission."""
    report = html_report(f"LUNA16 evaluation: {title}", (froc_section(result), node21_section(result, score)))
    path.write_text(report, encoding="utf-8")


def _section(section: Section) -> str:
    parts = [f"<section>\n<h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    parts += [_table(table) for table in section.tables]
    parts += [_picture(picture) for picture in section.pictures]
    return "\n".join([*parts, "</section>"])


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    caption = html.escape(table.caption)
    return (
        f"<table>\n<caption>{caption}</caption>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )


def _picture(picture: Picture) -> str:
    caption, data = html.escape(picture.caption), base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
