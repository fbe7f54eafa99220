"""Metrics as tables: grouped by what they were measured on, each beside the bar it has to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.inference.manifest import Metric


@dataclass(frozen=True)
class Bar:
    """What the project asks of a figure."""

    value: float
    is_least: bool = True
    """False where the figure must stay at or under the bar."""

    def __str__(self) -> str:
        return f"{'at least' if self.is_least else 'at most'} {self.value:g}"

    def is_met(self, value: float) -> bool:
        """Whether a value reaches the bar; it is compared as measured, not as rounded for print."""
        return value >= self.value if self.is_least else value <= self.value


BARS = {
    "nodule_auroc": Bar(0.985),
    "sensitivity_at_1_fp_per_scan_among_candidates": Bar(0.92),
    "malignancy_auroc_3_or_4_readers": Bar(0.93),
    "malignancy_auroc_all_readers": Bar(0.88),
    "malignancy_ece": Bar(0.05, is_least=False),
    "mask_dice_all": Bar(0.82),
    "diameter_within_1.5_mm_under_15_mm": Bar(0.90),
    "detection_sensitivity_at_1_fp_per_scan": Bar(0.85),
}
"""By metric, as issue 3 sets them under "What ships"."""

METRIC_HEADER = ("figure", "value", "95 % interval", "n", "bar")


def metrics_by_data(metrics: Sequence[Metric]) -> dict[str, list[Metric]]:
    """Metrics under the data that they were measured on, in their order."""
    groups: dict[str, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(metric.data, []).append(metric)
    return groups


def metric_row(metric: Metric) -> tuple[str, str, str, str, str]:
    """Cells under `METRIC_HEADER`."""
    interval = "" if metric.ci95 is None else f"{metric.ci95[0]:.3f} to {metric.ci95[1]:.3f}"
    return metric.name, _value(metric), interval, str(metric.n), verdict(metric)


def verdict(metric: Metric) -> str:
    """The bar and whether the value reaches it; nothing where the figure has no bar."""
    bar = BARS.get(metric.name)
    return "" if bar is None else f"{bar}: {'met' if bar.is_met(metric.value) else 'not met'}"


def _value(metric: Metric) -> str:
    """Whole numbers without an interval are counts; shares have three decimals, or more where those belie the bar."""
    if metric.ci95 is None and metric.value.is_integer():
        return f"{metric.value:.0f}"
    bar = BARS.get(metric.name)
    texts = [f"{metric.value:.{digits}f}" for digits in range(3, 9)]
    return next((t for t in texts if bar is None or bar.is_met(float(t)) == bar.is_met(metric.value)), texts[-1])
