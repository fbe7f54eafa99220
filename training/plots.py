"""The evaluation's pictures, as PNG bytes: FROC with its band, ROC, reliability, sensitivity by stratum."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from training.calibration import ReliabilityBin
from training.froc import FP_RATES, Band, Curve
from training.metrics import Estimate

_BLUE, _GREY = "tab:blue", "0.6"


def froc_plot(curves: Mapping[str, tuple[Curve, Band | None]]) -> bytes:
    """Sensitivity against false positives per scan (1/8 to 8, logarithmic), each curve with its bootstrap band."""
    figure, axes = _figure("False positives per scan", "Sensitivity")
    rates = np.geomspace(FP_RATES[0], FP_RATES[-1], 400)
    for name, (curve, band) in curves.items():
        (line,) = axes.plot(rates, curve.sensitivity_at(rates), label=name)
        axes.plot(FP_RATES, curve.sensitivity_at(np.array(FP_RATES)), "o", markersize=4, color=line.get_color())
        if band is not None:
            axes.fill_between(band.fp_per_scan, band.low, band.high, alpha=0.2, linewidth=0, color=line.get_color())
    axes.set_xscale("log", base=2)
    axes.set_xticks(FP_RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.set(xlim=(FP_RATES[0], FP_RATES[-1]), ylim=(0, 1))
    axes.legend(loc="lower right")
    return _png(figure)


def roc_plot(cases: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> bytes:
    """ROC curves of (labels, scores)."""
    figure, axes = _figure("False positive rate", "True positive rate")
    for name, (labels, scores) in cases.items():
        false, true, _ = roc_curve(np.asarray(labels, dtype=bool), np.asarray(scores))
        axes.plot(false, true, label=name)
    axes.plot([0, 1], [0, 1], ":", color=_GREY)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="lower right")
    return _png(figure)


def reliability_plot(bins: Mapping[str, Sequence[ReliabilityBin]]) -> bytes:
    """Observed share against mean predicted probability, with Wilson's intervals; the diagonal is calibration."""
    figure, axes = _figure("Predicted probability (mean of the bin)", "Observed share")
    axes.plot([0, 1], [0, 1], ":", color=_GREY)
    for name, found in bins.items():
        predicted = [one.mean_predicted for one in found]
        shares = [one.observed for one in found]
        axes.errorbar(
            predicted, [share.value for share in shares], yerr=_reach(shares), fmt="o-", capsize=2, label=name
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc="upper left")
    return _png(figure)


def sensitivity_plot(strata: Mapping[str, Estimate], label: str) -> bytes:
    """Sensitivity of each stratum (size, type) with its interval; strata without nodules are left out."""
    shown = {name: estimate for name, estimate in strata.items() if estimate.n}
    figure, axes = _figure(label, "Sensitivity")
    axes.bar(range(len(shown)), [estimate.value for estimate in shown.values()], color=_BLUE, alpha=0.6)
    axes.errorbar(
        range(len(shown)),
        [estimate.value for estimate in shown.values()],
        yerr=_reach(list(shown.values())),
        fmt="none",
        ecolor="black",
        capsize=4,
    )
    axes.set_xticks(range(len(shown)), [f"{name}\nn = {estimate.n}" for name, estimate in shown.items()])
    axes.set(ylim=(0, 1))
    return _png(figure)


def _reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    # Rounding may put a bound a hair on the wrong side of the value, which matplotlib refuses.
    below = [max(0.0, estimate.value - estimate.low) for estimate in estimates]
    above = [max(0.0, estimate.high - estimate.value) for estimate in estimates]
    return [below, above]


def _figure(x_label: str, y_label: str) -> tuple[Figure, Any]:
    # A Figure of our own, not pyplot's: no global state, no display, safe in any thread.
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
