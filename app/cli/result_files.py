"""The forms of a result as files in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from app.reporting.originals import Originals
    from app.reporting.results import Kind

QUICK = ("json", "csv")
"""Written unless told; the others read the scan again and load the libraries of DICOM and PDF, which takes seconds."""
ALL = "all"


def chosen_formats(asked: str | None) -> tuple[str, ...]:
    """Formats by name, from what stands behind ``--formats``.

    Raises
    ------
    OptionError
        ``unknown_format``, with those that there are.
    """
    from app.imaging.errors import OptionError
    from app.reporting.results import KINDS

    known = ("json", *KINDS)
    if asked is None:
        return QUICK
    if asked == ALL:
        return known
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",")))
    if not set(names) <= set(known):
        raise OptionError(f"--formats knows {', '.join(known)} and {ALL}.", code="unknown_format")
    return names


def write_results(
    folder: Path, formats: Sequence[str], document: str, originals: Originals, *, leave_out: bool
) -> None:
    """Write each format into the folder.

    Parameters
    ----------
    folder
        Created when missing; files in it are overwritten.
    formats
        From `chosen_formats`.
    document
        The JSON.
    originals
        The scan that was analysed, and the findings.
    leave_out
        Pass over a form that cannot be had of this scan, instead of failing.

    Raises
    ------
    ResultUnavailable
        Unless left out.
    """
    from app.reporting.bundle import assessment_in
    from app.reporting.errors import ResultUnavailable
    from app.reporting.material import Report
    from app.reporting.results import make_result

    report = Report(originals.findings, datetime.now(UTC), assessment_in(document))
    folder.mkdir(parents=True, exist_ok=True)
    for name in formats:
        if name == "json":
            (folder / "result.json").write_text(document + "\n", encoding="utf-8")
            continue
        try:
            made = make_result(cast("Kind", name), report, originals)
        except ResultUnavailable:
            if not leave_out:
                raise
        else:
            (folder / made.file_name).write_bytes(made.body)
