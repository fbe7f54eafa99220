"""Choose the thresholds of `app.inference.nodule_type` and the weights of `app.inference.volume_interval`.

`python -m training.measurement_fit --model model_store/lungnodule/0.2.0 --data ../shared/data` prints what fits the
patients that the model's networks were trained on best. Nothing is written: a person copies the figures, and
`training.measurement_agreement` judges them on the patients held out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from training.measured_nodules import MeasuredNodules, measure_lidc
from training.splits import read_split

BoolArray = NDArray[np.bool_]
SPICULATED_RATING = 3.0
"""Mean rating from which readers call a margin spiculated: the middle of LIDC's scale and above."""
TEXTURE_KINDS = ("ground_glass", "part_solid", "solid")


def fit_texture(nodules: MeasuredNodules) -> tuple[float, float, float]:
    """(part-solid from, solid from, macro F1): of the texture attribute, on nodules without calcium."""
    plain = nodules.where(nodules.kind != "calcified")
    steps = np.round(np.arange(0.3, 0.98, 0.02), 2)
    tried = ((_macro_f1(plain, low, high), low, high) for low, high in product(steps, steps) if low < high)
    score, low, high = max(tried)
    return float(low), float(high), float(score)


def fit_calcification(nodules: MeasuredNodules) -> tuple[float, float, float]:
    """(attribute below, share of calcium from, F0.5): a false sign of a benign nodule is worse than a missed one."""
    truth, share = nodules.kind == "calcified", nodules.calcium_mm3 / nodules.volume_mm3
    tried = (
        (f_score((share >= part) & (nodules.calcification_said < below), truth, beta=0.5), below, part)
        for below, part in product((0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95), (0.01, 0.02, 0.05, 0.1, 0.15, 0.2))
    )
    score, below, part = max(tried)
    return below, part, score


def fit_spiculation(nodules: MeasuredNodules) -> tuple[float, float]:
    """(attribute from, F1)."""
    truth = nodules.spiculation >= SPICULATED_RATING
    score, least = max(
        (f_score(nodules.spiculation_said >= t, truth), t) for t in np.round(np.arange(0.1, 0.7, 0.01), 2)
    )
    return float(least), score


def fit_interval(nodules: MeasuredNodules) -> tuple[float, float]:
    """(weight of the voxels, weight of the outline's doubt): most likely, then widened until 95 % are covered."""
    error = np.log(nodules.reference_volume_mm3 / nodules.volume_mm3)

    def spread(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.hypot(weights[0] * nodules.voxel_share, weights[1] * nodules.outline_doubt))

    def surprise(weights: NDArray[np.float64]) -> float:
        sigma = spread(weights)
        return float((np.log(sigma) + (error / sigma) ** 2 / 2).sum())

    weights = np.abs(minimize(surprise, np.array([0.2, 1.0]), method="Nelder-Mead").x)
    weights *= np.quantile(np.abs(error) / spread(weights), 0.95) / 1.96
    return float(weights[0]), float(weights[1])


def f_score(said: BoolArray, truth: BoolArray, *, beta: float = 1.0) -> float:
    """F measure; 0 where nothing is hit."""
    hits = float((said & truth).sum())
    return (1 + beta**2) * hits / (beta**2 * truth.sum() + said.sum()) if hits else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.measurement_fit", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a model with split.json")
    parser.add_argument("--data", type=Path, required=True, help="folder with lidc_nodule_slices.npz")
    parser.add_argument("--fold", type=int, default=0, help="fold that the networks were not trained on")
    args = parser.parse_args(arguments)
    split = read_split(args.model / "split.json")
    patients = [patient for patient, fold in split.fold_of_patient.items() if fold != args.fold]
    model = load_model(args.model, SessionOptions(device="cpu", threads=1))
    sys.stdout.write("\n".join(fitted_lines(measure_lidc(args.data, model, patients))) + "\n")
    return 0


def fitted_lines(nodules: MeasuredNodules) -> Iterable[str]:
    """What was fitted, as text."""
    yield f"{len(nodules.patient_id)} nodules of {len(np.unique(nodules.patient_id))} patients"
    yield "part-solid from {:.2f}, solid from {:.2f} of texture (macro F1 {:.3f})".format(*fit_texture(nodules))
    yield "calcified: attribute below {:.2f} and share from {:.2f} (F0.5 {:.3f})".format(*fit_calcification(nodules))
    yield "spiculated from {:.2f} (F1 {:.3f})".format(*fit_spiculation(nodules))
    yield "interval: voxels {:.2f}, doubt {:.2f}".format(*fit_interval(nodules))


def _macro_f1(nodules: MeasuredNodules, low: float, high: float) -> float:
    said = np.where(
        nodules.texture_said < low, "ground_glass", np.where(nodules.texture_said < high, "part_solid", "solid")
    )
    return float(np.mean([f_score(said == kind, nodules.kind == kind) for kind in TEXTURE_KINDS]))


if __name__ == "__main__":
    sys.exit(main())
