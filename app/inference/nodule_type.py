"""Solid, part-solid, ground glass or calcified; spiculated or not: the network's attributes, and HU for calcium.

Attributes are those of LIDC-IDRI's readers, scaled to 0..1 (`training.train_characteriser`): texture from ground glass
to solid, spiculation from none to marked, calcification from some to none. A model that does not give an attribute gets
no answer that would rest on it.

All thresholds are fitted by `python -m training.measurement_fit` on the patients that the networks were trained on, and
judged on others: docs/measurements.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from app.inference.densities import Section, calcium_mm3, has_fat
from app.inference.measurements import volume_mm3

Kind = Literal["solid", "part_solid", "ground_glass", "calcified"]

PART_SOLID_FROM, SOLID_FROM = 0.54, 0.82
"""Of the texture attribute."""
CALCIFIED_BELOW, CALCIFIED_SHARE = 0.85, 0.02
"""Of the calcification attribute, and of the outline's volume that is calcium: both must say so."""
CALCIFIED_SHARE_ALONE = 0.1
"""Where the model has no such attribute."""
_LEAST_CALCIUM_MM3 = 3.0
SPICULATED_FROM = 0.21


def nodule_kind(attributes: Mapping[str, float], signs: tuple[str, ...]) -> Kind | None:
    """Type of a nodule: calcium first, then how solid it is.

    Parameters
    ----------
    attributes
        ``texture`` decides; None without it, unless there is calcium.
    signs
        `density_signs` of the same nodule.
    """
    if "calcification" in signs:
        return "calcified"
    if "texture" not in attributes:
        return None
    texture = attributes["texture"]
    if texture < PART_SOLID_FROM:
        return "ground_glass"
    return "solid" if texture >= SOLID_FROM else "part_solid"


def density_signs(within: Section, attributes: Mapping[str, float]) -> tuple[str, ...]:
    """``calcification`` and ``fat``, where more of either is there than noise or partial volume would explain.

    Says nothing of the pattern of calcium, benign or not.
    """
    found = []
    if _is_calcified(calcium_mm3(within), volume_mm3(within.mask), attributes.get("calcification")):
        found.append("calcification")
    if has_fat(within):
        found.append("fat")
    return tuple(found)


def is_spiculated(attributes: Mapping[str, float]) -> bool | None:
    """Whether the margin is spiculated; None where the model does not say."""
    return attributes["spiculation"] >= SPICULATED_FROM if "spiculation" in attributes else None


def _is_calcified(calcium: float, volume: float, attribute: float | None) -> bool:
    if calcium < _LEAST_CALCIUM_MM3:
        return False
    share = calcium / volume
    return (
        share >= CALCIFIED_SHARE_ALONE
        if attribute is None
        else (share >= CALCIFIED_SHARE and attribute < CALCIFIED_BELOW)
    )
