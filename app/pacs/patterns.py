"""Regular expressions that cannot take long, whatever text a scanner wrote into a description."""

from __future__ import annotations

import re

LONGEST_TEXT = 64
"""Of LO, the value representation of SeriesDescription (PS3.5 6.2)."""
_LONGEST_PATTERN = 200
_MOST_REPEATS = 3

_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_REPEATS = frozenset("*+{")


def checked_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern for text of at most 64 characters.

    Matching goes back and forth at most about 64**3 times: a pattern may repeat single characters or classes three
    times, and never a group. Back references and look-around are not allowed.

    Raises
    ------
    ValueError
        It may take long, or is no regular expression.
    """
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"pattern is longer than {_LONGEST_PATTERN} characters")
    atoms = _ATOM.findall(pattern)
    repeats = 0
    for before, atom, after in zip(["", *atoms], atoms, [*atoms[1:], "", ""], strict=False):
        if atom in _REPEATS:
            repeats += 1
            if before == ")":
                raise ValueError("pattern repeats a group; repeat single characters or classes only")
        if atom == "?" and before == "(" and after != ":":
            raise ValueError("pattern has a special group; only (?:...) is allowed")
        if re.fullmatch(r"\\[0-9]", atom):
            raise ValueError("pattern refers back to a group")
    if repeats > _MOST_REPEATS:
        raise ValueError(f"pattern repeats {repeats} times; at most {_MOST_REPEATS} are allowed")
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error:
        raise ValueError("pattern is no regular expression") from None


def found(pattern: str, text: str) -> bool:
    """Whether the pattern is found in the text, in any case; only the first 64 characters count."""
    return checked_pattern(pattern).search(text[:LONGEST_TEXT]) is not None
