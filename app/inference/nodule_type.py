"""Solid, part-solid, ground glass or calcified; spiculated or not: the network's attributes against HU.

Attributes are those of LIDC-IDRI's readers, scaled to 0..1 (`training.train_characteriser`): texture from ground glass
to solid, spiculation from none to marked, calcification from some to none. A model that does not give an attribute gets
no answer that would rest on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from app.inference.densities import Section, calcium_mm3, solid_share

Kind = Literal["solid", "part_solid", "ground_glass", "calcified"]

GROUND_GLASS_BELOW, SOLID_FROM = 0.5, 0.8
"""Of the texture score; this and what follows is fitted by `python -m training.measurement_fit` on the patients that
the networks were trained on, and judged on others: docs/measurements.md."""
SOLID_SHARE_WEIGHT = 0.3
"""How far the share of solid HU enters the texture score, beside the network's attribute."""
CALCIFIED_BELOW = 0.7
CALCIFIED_MM3 = 8.0
SPICULATED_FROM = 0.5


def nodule_kind(within: Section, attributes: Mapping[str, float]) -> Kind | None:
    """Type of a nodule.

    Parameters
    ----------
    within
        Its HU.
    attributes
        ``texture`` and ``calcification`` decide; None without them.
    """
    if "texture" not in attributes or "calcification" not in attributes:
        return None
    return kind_from(
        texture=attributes["texture"],
        calcification=attributes["calcification"],
        solid_share=solid_share(within),
        calcium_mm3=calcium_mm3(within),
    )


def kind_from(*, texture: float, calcification: float, solid_share: float, calcium_mm3: float) -> Kind:
    """The rule itself, on figures: calcium first, then how solid it is."""
    if calcification < CALCIFIED_BELOW and calcium_mm3 >= CALCIFIED_MM3:
        return "calcified"
    score = texture_score(texture, solid_share)
    if score < GROUND_GLASS_BELOW:
        return "ground_glass"
    return "solid" if score >= SOLID_FROM else "part_solid"


def texture_score(texture: float, solid_share: float) -> float:
    """0 (ground glass) to 1 (solid): the network's word, and the share of the outline above -300 HU."""
    return (1 - SOLID_SHARE_WEIGHT) * texture + SOLID_SHARE_WEIGHT * solid_share


def is_spiculated(attributes: Mapping[str, float]) -> bool | None:
    """Whether the margin is spiculated; None where the model does not say."""
    return attributes["spiculation"] >= SPICULATED_FROM if "spiculation" in attributes else None
