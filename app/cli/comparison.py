"""`lungnodule analyse --prior`: the earlier scan analysed too, and what changed as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.inference.findings import Findings, Nodule, OnProgress
    from app.inference.model_store import LoadedModel
    from app.inference.pipeline import AnalysisOptions
    from app.reporting.compared import Comparison, NodulePair

_CHANGES = {"new": "new", "resolved": "resolved", "not_covered": "not covered by the other scan"}


def compared_analysis(
    source: Path | Sequence[Path],
    prior: Path,
    model: LoadedModel,
    options: AnalysisOptions,
    on_progress: OnProgress | None,
) -> Findings:
    """Analyse both; ``options.read.series_uid`` names a series of the current scan only."""
    from app.inference.pipeline import analyse
    from app.reporting.priors import analyse_with_prior

    kept = replace(options, keep_trace=True)
    reading = replace(options.read, series_uid=None)
    return analyse_with_prior(
        lambda told: analyse(prior, model, replace(kept, read=reading), told),
        lambda told: analyse(source, model, kept, told),
        on_progress or (lambda _progress: None),
        threads=options.threads,
    )


def print_comparison(findings: Findings) -> None:
    """What changed since the prior; nothing where there was none."""
    from rich.console import Console
    from rich.table import Table

    from app.inference.findings import DISCLAIMER
    from app.reporting.compared import ComparedFindings

    comparison = findings.comparison if isinstance(findings, ComparedFindings) else None
    if comparison is None:
        return
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    if comparison.failure is not None:
        console.print(f"note[{comparison.failure.code}]: {comparison.failure.message}", markup=False, soft_wrap=True)
    else:
        table = Table(title=_title(comparison), title_justify="left", caption=DISCLAIMER, caption_justify="left")
        for heading in ("nodule", "prior", "diameter", "volume", "by volume", "by diameter", "doubling time"):
            table.add_column(heading, justify="right" if heading in ("diameter", "volume") else "left")
        for row in _rows(findings, comparison):
            table.add_row(*row)
        console.print(table)
    for notice in comparison.notices:
        console.print(f"note[{notice.code}]: {notice.message}", markup=False, soft_wrap=True)
    if comparison.missing:
        console.print(f"missing: {', '.join(comparison.missing)}", markup=False, soft_wrap=True)


def _title(comparison: Comparison) -> str:
    since = "an unknown time" if comparison.days is None else f"{comparison.days} days"
    return f"Against the prior, {since} before; registration within {comparison.quality.error_mm:.1f} mm"


def _rows(findings: Findings, comparison: Comparison) -> list[tuple[str, ...]]:
    now = {nodule.id: nodule for nodule in findings.nodules}
    before = {nodule.id: nodule for nodule in comparison.prior_nodules}
    rows = [_pair(pair, before[pair.prior_id], now[pair.current_id]) for pair in comparison.pairs]
    for alone, nodules, is_current in ((comparison.only_current, now, True), (comparison.only_prior, before, False)):
        for nodule in alone:
            there = "" if nodule.faint_probability is None else f" ({nodule.faint_probability:.2f})"
            change = _CHANGES.get(nodule.status, f"fainter in the other scan{there}")
            found = nodules[nodule.nodule_id]
            names = (found.id, "-") if is_current else ("-", found.id)
            rows.append((*names, f"{found.diameter_mm:.1f} mm", _volume(found), change, "", ""))
    return rows


def _volume(nodule: Nodule) -> str:
    return "-" if nodule.volume_mm3 is None else f"{nodule.volume_mm3:.0f} mm³"


def _pair(pair: NodulePair, before: Nodule, now: Nodule) -> tuple[str, ...]:
    growth = pair.growth
    low, high = growth.volume_change_interval_percent
    return (
        pair.current_id,
        pair.prior_id,
        f"{before.diameter_mm:.1f} -> {now.diameter_mm:.1f} mm",
        f"{before.volume_mm3 or 0:.0f} -> {_volume(now)}",
        f"{growth.by_volume}, {growth.volume_change_percent:+.0f} % ({low:+.0f} to {high:+.0f})",
        f"{growth.by_diameter.replace('_', ' ')}, {growth.diameter_change_mm:+.1f} mm",
        _doubling(growth.doubling_time_days, growth.doubling_time_interval_days),
    )


def _doubling(days: float | None, interval: tuple[float | None, float | None] | None) -> str:
    if days is None or interval is None:
        return "-"
    low, high = ("unbounded" if end is None else f"{end:.0f}" for end in interval)
    return f"{days:.0f} d ({low} to {high})"
