"""`docs/activations.md`, its table and its plot, from the finished runs of `training.compare_activations`.

Two questions, two tests. Would these networks rank ReLU otherwise on other patients? Interval of the difference by
resampling held-out patients, the same draw for both activations, averaged over seeds and folds. Would other training
runs? Student's t over the paired runs with the variance corrected for overlapping training sets (Nadeau and Bengio
2003), and Holm's correction over the nine comparisons.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from training.compare_activations import (
    ACTIVATIONS,
    BASELINE,
    Budget,
    Patches,
    Run,
    read_runs,
    scores_path,
    study_split,
)
from training.metrics import Estimate, area_under_roc, percentile_interval, resamples

N_BOOTSTRAPS = 400


@dataclass(frozen=True)
class ActivationResult:
    """One activation over all runs that every activation has finished."""

    activation: str
    auroc: Estimate
    """Mean over runs; interval by resampling patients; n counts patients."""
    spread_of_runs: float
    """Standard deviation of the runs' AUROC."""
    minus_baseline: Estimate | None
    p_value: float | None
    """Corrected paired t-test against the baseline."""
    p_holm: float | None
    cpu_seconds: float
    """Median for one run."""


def corrected_paired_t(differences: ArrayLike, n_train: int, n_test: int) -> float:
    """Two-sided p of no difference over k paired runs whose training sets overlap (Nadeau and Bengio 2003)."""
    values = np.asarray(differences, dtype=np.float64)
    k, spread = values.size, float(values.std(ddof=1)) if values.size > 1 else math.nan
    if not spread > 0:
        return math.nan
    statistic = float(values.mean()) / (spread * math.sqrt(1 / k + n_test / n_train))
    return 2 * float(student.sf(abs(statistic), k - 1))


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down correction, in the order given; NaN stays NaN and is not counted."""
    order = sorted((index for index, p in enumerate(p_values) if not math.isnan(p)), key=p_values.__getitem__)
    adjusted, running = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def summarise(patches: Patches, out: Path, budget: Budget) -> tuple[list[ActivationResult], int]:
    """Results by falling AUROC, and how many (seed, fold) pairs they rest on: those all activations have finished.

    Raises
    ------
    ValueError
        If no pair is finished by all activations that have any run.
    """
    runs = {run.key: run for run in read_runs(out, budget)}
    names = [name for name in ACTIVATIONS if any(key[0] == name for key in runs)]
    pairs = sorted({key[1:] for key in runs})
    pairs = [pair for pair in pairs if all((name, *pair) in runs for name in names)]
    if not pairs or BASELINE not in names:
        raise ValueError(f"no seed and fold that every activation has finished in {out}; run the study first")
    draws, values = _bootstrap_areas(patches, out, budget, names, pairs)
    aurocs = {name: np.array([runs[name, *pair].auroc for pair in pairs]) for name in names}
    n_test = int(np.mean([runs[BASELINE, *pair].n_held_out for pair in pairs]))
    n_train = len(patches.is_nodule) - n_test
    others = [name for name in names if name != BASELINE]
    p_values = [corrected_paired_t(aurocs[name] - aurocs[BASELINE], n_train, n_test) for name in others]
    tests = dict(zip(others, zip(p_values, holm(p_values), strict=True), strict=True))
    n_patients = len(set(patches.patient_id.tolist()))
    results = []
    for column, name in enumerate(names):
        base = names.index(BASELINE)
        difference = Estimate(
            float(values[column] - values[base]), *percentile_interval(draws[:, column] - draws[:, base]), n_patients
        )
        seconds = float(np.median([runs[name, *pair].cpu_seconds for pair in pairs]))
        results.append(
            ActivationResult(
                activation=name,
                auroc=Estimate(float(values[column]), *percentile_interval(draws[:, column]), n_patients),
                spread_of_runs=float(aurocs[name].std(ddof=1)) if len(pairs) > 1 else math.nan,
                minus_baseline=None if name == BASELINE else difference,
                p_value=tests.get(name, (None, None))[0],
                p_holm=tests.get(name, (None, None))[1],
                cpu_seconds=seconds,
            )
        )
    return sorted(results, key=lambda result: -result.auroc.value), len(pairs)


def verdict(results: list[ActivationResult]) -> str:
    """What came out, in words: who is first, and from whom ReLU differs."""
    place = [result.activation for result in results].index(BASELINE) + 1
    better = [r for r in results if r.p_holm is not None and r.p_holm < 0.05 and _gain(r) > 0]
    worse = [r for r in results if r.p_holm is not None and r.p_holm < 0.05 and _gain(r) < 0]
    level = [r for r in results if r.minus_baseline is not None and r not in better and r not in worse]
    sentences = [f"{BASELINE} came {_ordinal(place)} of {len(results)}; first was {results[0].activation}."]
    if better:
        sentences.append(f"Significantly more accurate than {BASELINE}: {_names(better)}.")
    if worse:
        sentences.append(f"Significantly less accurate than {BASELINE}: {_names(worse)}.")
    if level:
        sentences.append(f"Not told apart from {BASELINE} by this study: {_names(level)}.")
    supported = place == 1 and not level
    claim = "The claim that ReLU is the most accurate of them is"
    sentences.append(f"{claim} {'supported' if supported else 'contradicted' if better else 'not supported'}.")
    return " ".join(sentences)


def write_activation_report(patches: Patches, out: Path, docs: Path, budget: Budget) -> None:
    """Write `activations.md`, `activations.csv` and `activations.png` into the folder of the documentation."""
    docs.mkdir(parents=True, exist_ok=True)
    results, n_pairs = summarise(patches, out, budget)
    runs = read_runs(out, budget)
    _write_csv(docs / "activations.csv", runs)
    _write_plot(docs / "activations.png", results)
    (docs / "activations.md").write_text(_text(results, n_pairs, patches, budget), encoding="utf-8")


def _bootstrap_areas(
    patches: Patches, out: Path, budget: Budget, names: list[str], pairs: list[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(draws, activations) and (activations,): AUROC averaged over runs, for draws of patients and for all of them."""
    split, patients = study_split(patches, budget), patches.patient_id.tolist()
    draws = np.zeros((N_BOOTSTRAPS, len(names)))
    values = np.zeros(len(names))
    for seed, fold in pairs:
        held_out = split.held_out(fold, patients)
        labels = patches.is_nodule[held_out]
        scores = [np.load(scores_path(out, (name, seed, fold))) for name in names]
        values += [area_under_roc(labels, column) for column in scores]
        # One seed for all: each draw takes the same patients for every activation and every seed.
        for number, drawn in enumerate(resamples(patches.patient_id[held_out], N_BOOTSTRAPS, seed=fold)):
            draws[number] += [area_under_roc(labels[drawn], column[drawn]) for column in scores]
    return draws / len(pairs), values / len(pairs)


def _gain(result: ActivationResult) -> float:
    return result.minus_baseline.value if result.minus_baseline else 0.0


def _names(results: list[ActivationResult]) -> str:
    return ", ".join(result.activation for result in results)


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")


def _write_csv(path: Path, runs: list[Run]) -> None:
    columns = ("activation", "seed", "fold", "auroc", "n_held_out", "n_nodules", "training_loss", "cpu_seconds")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([getattr(run, column) for column in columns] for run in runs)


def _write_plot(path: Path, results: list[ActivationResult]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for row, result in enumerate(reversed(results)):
        colour = "tab:red" if result.activation == BASELINE else "tab:blue"
        estimate = result.auroc
        axes.plot([estimate.low, estimate.high], [row, row], color=colour)
        axes.plot(estimate.value, row, "o", color=colour)
    axes.set_yticks(range(len(results)), [result.activation for result in reversed(results)])
    axes.set_xlabel("AUROC, nodule against non-nodule, patients held out (95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _text(results: list[ActivationResult], n_pairs: int, patches: Patches, budget: Budget) -> str:
    complete = budget.seeds * budget.folds
    state = "complete" if n_pairs >= complete else f"unfinished: {n_pairs} of {complete} pairs of seed and fold"
    rows = [
        f"| {r.activation} | {r.auroc.value:.4f} | {r.auroc.low:.4f} to {r.auroc.high:.4f} | {r.spread_of_runs:.4f} "
        f"| {_difference(r)} | {_p(r.p_value)} | {_p(r.p_holm)} | {r.cpu_seconds:.0f} |"
        for r in results
    ]
    table = "\n".join(rows)
    return f"""# Which activation function?

Generated by `python -m training.compare_activations report`; nothing here is typed by hand.

The project's first text claims that of the activation functions tried ReLU was the most accurate. {verdict(results)}

{len(patches.is_nodule):,} axial patches of LUNA16 candidates ({int(patches.is_nodule.sum()):,} on a nodule) from
{len(set(patches.patient_id.tolist()))} patients. A four-block CNN ({"-".join(map(str, budget.widths))} channels, 3 x 3,
batch norm, max pooling, global mean) on {budget.crop_px} x {budget.crop_px} native pixels, {budget.steps} steps of
{budget.batch} patches ({budget.nodules_per_batch} nodules), AdamW with one cycle to {budget.learning_rate:g}, bfloat16
on a CPU. {budget.folds} folds by patient, {budget.seeds} seeds; the study is {state}, {n_pairs} networks for each
activation. All activations start from the same weights and see the same batches.

| activation | AUROC | 95 % interval | SD of runs | minus {BASELINE} (95 % interval) | p | p (Holm) | CPU s |
|---|---|---|---|---|---|---|---|
{table}

![AUROC of each activation](activations.png)

AUROC is the mean over held-out folds and seeds. Intervals: {N_BOOTSTRAPS} resamples of the held-out patients, the same
for every activation. p: paired t-test over the runs, corrected for overlapping training sets (Nadeau and Bengio 2003),
then for the {len(results) - 1} comparisons (Holm). Every run is in [activations.csv](activations.csv).

What this cannot say: the budget is short and one learning rate serves all, so an activation that learns slowly
or wants another rate is at a disadvantage; the network is small and has batch norm, which hides much of what tells
activations apart. It ranks activations for this kind of network on these patches, and nothing else.
"""


def _difference(result: ActivationResult) -> str:
    if result.minus_baseline is None:
        return "-"
    estimate = result.minus_baseline
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def _p(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
