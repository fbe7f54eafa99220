"""The evaluation's pictures, as PNG bytes: FROC with its band, ROC, reliability, sensitivity by stratum, agreement."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from app.evaluation.estimates import Estimate
from app.evaluation.froc import FP_RATES, Band, Curve
from training.calibration import ReliabilityBin
from training.metrics import BlandAltman

_BLUE, _GREY = "tab:blue", "0.6"
_GREY_LEVELS = (64, 32, 16, 8, 4)


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


def bland_altman_plot(measured: ArrayLike, reference: ArrayLike, agreement: BlandAltman, unit: str) -> bytes:
    """Difference against mean of two measurements, with bias and 95 % limits of agreement."""
    first, second = np.asarray(measured, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    figure, axes = _figure(f"Mean of both ({unit})", f"Measured - reference ({unit})")
    axes.plot((first + second) / 2, first - second, ".", markersize=3, alpha=0.4, color=_BLUE)
    for name, line in (
        ("upper limit", agreement.upper_limit),
        ("bias", agreement.bias),
        ("lower limit", agreement.lower_limit),
    ):
        axes.axhline(line.value, color="black", linestyle="-" if name == "bias" else "--", linewidth=1)
        axes.axhspan(line.low, line.high, color=_GREY, alpha=0.4, linewidth=0)
        axes.annotate(
            f"{name} {line.value:.2f}", (1, line.value), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
    return _png(figure)


def overlap_plot(diameter_mm: ArrayLike, dice: ArrayLike, bands_mm: Sequence[tuple[float, float]]) -> bytes:
    """Dice against reference diameter, one point a nodule, with the mean of each size band."""
    size, overlap = np.asarray(diameter_mm, dtype=np.float64), np.asarray(dice, dtype=np.float64)
    figure, axes = _figure("Reference diameter (mm)", "Dice")
    axes.plot(size, overlap, ".", markersize=3, alpha=0.4, color=_BLUE)
    for low, high in bands_mm:
        inside = (size >= low) & (size < high)
        if inside.any():
            axes.plot([low, high], [overlap[inside].mean()] * 2, color="black", label="mean of the size band")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:1], labels[:1], loc="lower right")
    axes.set(ylim=(0, 1))
    return _png(figure)


def grey_png(figure: Figure, max_bytes: int) -> bytes:
    """A figure in 8-bit grey, in as many levels of grey as fit ``max_bytes``.

    Raises
    ------
    ValueError
        If even the fewest levels do not fit.
    """
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=-1)
    for levels in _GREY_LEVELS:
        step = 255 / (levels - 1)
        png = _encoded(np.rint(np.rint(grey / step) * step).astype(np.uint8))
        if len(png) <= max_bytes:
            return png
    raise ValueError(f"the picture takes {len(png)} bytes in {levels} levels of grey; at most {max_bytes} are allowed")


def _encoded(grey: NDArray[np.uint8]) -> bytes:
    """PNG (ISO/IEC 15948) of 8-bit grey; rows are not filtered, which packs few levels best."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = grey.shape
    rows = np.pad(grey, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


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
