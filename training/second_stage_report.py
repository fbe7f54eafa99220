"""Sections of the evaluation's report on the second stage: nodule or not, malignancy, outline and diameter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app.evaluation.estimates import Estimate, bootstrap
from training.calibration import reliability_bins
from training.characteriser_evaluation import (
    BoolArray,
    FloatArray,
    JudgedNodules,
    JudgedPatches,
    nodule_figures,
    patch_figures,
)
from training.detection_evaluation import SIZE_BANDS_MM
from training.evaluate_report import Picture, Section, Table, estimates_table
from training.metrics import bland_altman
from training.plots import bland_altman_plot, overlap_plot, reliability_plot, roc_plot


def nodule_section(judged: Mapping[str, JudgedPatches]) -> Section:
    """Nodule against non-nodule among LUNA16's candidates."""
    counts = " ".join(
        f"In {name}: {len(j.is_nodule)} candidates of {len(np.unique(j.patient_id))} patients, "
        f"{int(j.is_nodule.sum())} of them on {len(np.unique(j.nodule_key[j.is_nodule]))} nodules."
        for name, j in judged.items()
    )
    text = (
        "The second stage on real candidates of LUNA16 (axial patches, all vendors), of patients that its fold never "
        "saw. Sensitivity among candidates counts the nodules that have a candidate in the data; it is not detection."
    )
    return Section(
        "Nodule or not",
        (text, counts),
        tuple(estimates_table(f"Nodule or not, {name}", patch_figures(j)) for name, j in judged.items()),
        (
            Picture(
                roc_plot({name: (j.is_nodule, j.log_odds) for name, j in judged.items()}),
                "ROC of nodule against non-nodule.",
            ),
            Picture(
                reliability_plot({name: reliability_bins(j.is_nodule, j.probability) for name, j in judged.items()}),
                "Reliability of the probability of a nodule, cross-fitted; bars are Wilson's 95 % intervals.",
            ),
        ),
    )


def malignancy_section(judged: Mapping[str, JudgedNodules]) -> Section:
    """Malignancy against the readers' mean rating."""
    curves = {}
    for name, j in judged.items():
        several = j.rated & (j.readers >= 3)
        curves[f"{name}, all"] = (j.malignant[j.rated], j.log_odds[j.rated])
        curves[f"{name}, 3 or 4 readers"] = (j.malignant[several], j.log_odds[several])
    counts = " ".join(
        f"In {name}: {int(j.rated.sum())} nodules rated one way or the other, "
        f"{int(j.malignant[j.rated].sum())} of them malignant; {int((~j.rated).sum())} in between are left out."
        for name, j in judged.items()
    )
    return Section(
        "Malignancy",
        (f"Against the readers' mean rating in LIDC-IDRI: suspicion on one CT, not pathology. {counts}",),
        tuple(
            estimates_table(f"Malignancy, {name}", _chosen(nodule_figures(j), ("malignancy",)))
            for name, j in judged.items()
        ),
        (
            Picture(roc_plot(_with_both_classes(curves)), "ROC of malignancy by mean rating."),
            Picture(
                reliability_plot(
                    {n: reliability_bins(j.malignant[j.rated], j.probability[j.rated]) for n, j in judged.items()}
                ),
                "Reliability of the probability of malignancy, cross-fitted; bars are Wilson's 95 % intervals.",
            ),
        ),
    )


def outline_section(judged: Mapping[str, JudgedNodules]) -> Section:
    """Diameter by Bland and Altman, and Dice against size, against the readers' majority outline."""
    tables: list[Table] = []
    pictures: list[Picture] = []
    for name, j in judged.items():
        agreement = bland_altman(j.diameter_mm, j.reference_diameter_mm)
        limits = {
            "bias": agreement.bias,
            "lower 95 % limit": agreement.lower_limit,
            "upper 95 % limit": agreement.upper_limit,
        }
        tables += [
            estimates_table(
                f"Outline and diameter, {name}", _chosen(nodule_figures(j), ("mask_dice", "diameter_within"))
            ),
            estimates_table(f"Agreement of diameters in mm, {name}", limits),
            estimates_table(f"Mean Dice by reference diameter, {name}", _dice_by_size(j)),
        ]
        pictures += [
            Picture(
                bland_altman_plot(j.diameter_mm, j.reference_diameter_mm, agreement, "mm"),
                f"Diameter of the network's mask against that of the readers' outline (Bland and Altman), {name}.",
            ),
            Picture(
                overlap_plot(j.reference_diameter_mm, j.dice, SIZE_BANDS_MM),
                f"Dice against size, {name}; lines are means.",
            ),
        ]
    text = (
        "The network's mask against what at least half of the readers who marked the nodule outlined, slice by slice. "
        "Diameter is the mean of long and short axis, by the same rule on both, and 0 where the network outlines "
        "nothing. The mask's shift is cross-fitted. Intervals of the limits of agreement take nodules as independent."
    )
    return Section("Outline and diameter", (text,), tuple(tables), tuple(pictures))


def _dice_by_size(judged: JudgedNodules) -> dict[str, Estimate]:
    size = judged.reference_diameter_mm
    bands = {f"{low:g} to {high:g} mm": (size >= low) & (size < high) for low, high in SIZE_BANDS_MM}
    return {name: _mean_dice(judged, inside) for name, inside in bands.items() if inside.any()}


def _mean_dice(judged: JudgedNodules, chosen: BoolArray) -> Estimate:
    overlap = judged.dice[chosen]
    return bootstrap(lambda drawn: float(overlap[drawn].mean()), judged.patient_id[chosen])


def _chosen(figures: Mapping[str, Estimate], starts: tuple[str, ...]) -> dict[str, Estimate]:
    return {name: figure for name, figure in figures.items() if name.startswith(starts)}


def _with_both_classes(curves: Mapping[str, tuple[BoolArray, FloatArray]]) -> dict[str, tuple[BoolArray, FloatArray]]:
    """A curve needs both; few nodules may all be of one kind."""
    return {name: curve for name, curve in curves.items() if curve[0].any() and not curve[0].all()}
