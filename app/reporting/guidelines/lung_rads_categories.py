"""Sizes, thresholds and categories of Lung-RADS v2022; sources as in `app.reporting.guidelines.lung_rads`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.reporting.answers import Ruling
from app.reporting.nodule_facts import NoduleFacts, half_up, mean_diameter_0_1mm

RANK: Mapping[str, int] = {"1": 1, "2": 2, "3": 3, "4A": 4, "4B": 5, "4X": 6}
"""From the least to the most suspicious."""

_WORK_UP = (
    "Work-up by a specialist: diagnostic CT, PET/CT, tissue sampling or referral, by probability of cancer and "
    "what else the patient has."
)
MANAGEMENT: Mapping[str, str] = {
    "0": "No category yet: fetch the earlier CT, repeat the low-dose CT, or, where infection is suspected, do so after "
    "1 to 3 months.",
    "1": "Go on with yearly screening: low-dose CT in 12 months.",
    "2": "Go on with yearly screening: low-dose CT in 12 months.",
    "3": "Low-dose CT in 6 months.",
    "4A": "Low-dose CT in 3 months.",
    "4A, solid >= 8 mm": "Low-dose CT in 3 months; PET/CT may be considered, as something solid measures 8 mm or more.",
    "4B": _WORK_UP,
    "4X": _WORK_UP,
}
PROBABILITIES: Mapping[str, str] = {
    "1": "below 1 %", "2": "below 1 %", "3": "1 to 2 %", "4A": "5 to 15 %", "4B": "over 15 %", "4X": "over 15 %",
}  # fmt: skip
"""Of malignancy among screened people of that category [yingbo777.com/home/lung-rads]."""


@dataclass(frozen=True)
class Threshold:
    """A mean diameter in mm and the volume of a sphere of it in mm3, as the table prints both."""

    mm: float
    mm3: int


T4, T6, T8 = Threshold(4, 34), Threshold(6, 113), Threshold(8, 268)
T10, T15, T30 = Threshold(10, 524), Threshold(15, 1767), Threshold(30, 14137)
ALL_THRESHOLDS = (T4, T6, T8, T10, T15, T30)


@dataclass(frozen=True)
class Size:
    """A mean diameter in mm to one decimal, or, without one, a volume in whole mm3."""

    mean_mm: float | None
    volume_mm3: float | None = None

    @classmethod
    def of(cls, nodule: NoduleFacts) -> Size | None:
        """The size of the whole nodule; None where nothing was measured."""
        mean_mm = mean_diameter_0_1mm(nodule)
        if mean_mm is not None:
            return cls(mean_mm)
        return None if nodule.volume_mm3 is None else cls(None, half_up(nodule.volume_mm3, 0))

    @classmethod
    def of_solid_component(cls, nodule: NoduleFacts) -> Size | None:
        """The size of the solid component, 0 included; None where it was not measured."""
        return None if nodule.solid_diameter_mm is None else cls(half_up(nodule.solid_diameter_mm, 1))

    def reaches(self, threshold: Threshold) -> bool:
        """Whether it is at least as large."""
        if self.mean_mm is not None:
            return self.mean_mm >= threshold.mm
        return (self.volume_mm3 or 0.0) >= threshold.mm3

    @property
    def thresholds_reached(self) -> int:
        """How many thresholds of the table it reaches."""
        return sum(self.reaches(threshold) for threshold in ALL_THRESHOLDS)


def ruling(category: str, rule_id: str, sentence: str) -> Ruling:
    """A category with its management and what it means."""
    notes = (f"Among screened people, {PROBABILITIES[category]} of this category turn out malignant.",)
    return Ruling(category, rule_id, sentence, MANAGEMENT[category], notes=notes)
