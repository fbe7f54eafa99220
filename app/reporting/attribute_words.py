"""The network's attributes in a reader's words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

_WORDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "texture": ("texture", ("ground glass", "mostly ground glass", "part-solid", "mostly solid", "solid")),
    "spiculation": ("spiculation", ("none", "slight", "moderate", "marked", "very marked")),
    "lobulation": ("lobulation", ("none", "slight", "moderate", "marked", "very marked")),
    "margin": ("margin", ("poorly defined", "rather poorly defined", "moderately defined", "well defined", "sharp")),
}
"""LIDC-IDRI's five ratings, from 1 to 5; the network gives (rating - 1) / 4."""
_EDGES = (0.125, 0.375, 0.625, 0.875)
_CALCIUM_EDGE = 0.7
"""LIDC's calcification is 6 where there is none and 1 to 5 by pattern, so only presence can be read off a mean."""


def attributes_in_words(attributes: Mapping[str, float]) -> tuple[str, ...]:
    """One phrase for each attribute that is known by name, in the order given.

    Parameters
    ----------
    attributes
        0 to 1, LIDC-IDRI's ratings scaled as `training.train_characteriser` does.
    """
    return tuple(phrase for name, value in attributes.items() if (phrase := _phrase(name, value)))


def _phrase(name: str, value: float) -> str:
    if name == "calcification":
        return "calcification: " + ("none seen" if value >= _CALCIUM_EDGE else "likely")
    if name not in _WORDS:
        return ""
    label, words = _WORDS[name]
    return f"{label}: {words[bisect_right(_EDGES, value)]}"
