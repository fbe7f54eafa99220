"""Which series are to be analysed, by what the header of an instance says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.pacs.config import Rule
from app.pacs.patterns import found


@dataclass(frozen=True)
class SeriesFacts:
    """What rules look at. None: the header does not say."""

    modality: str | None = None
    body_part: str | None = None
    description: str | None = None
    slice_thickness_mm: float | None = None


def first_fitting(rules: Sequence[Rule], facts: SeriesFacts, *, thickness_known: bool = True) -> Rule | None:
    """The first rule that a series fits, in the order of the file; None where nothing asks for it.

    ``thickness_known`` is False where its thickness cannot be judged yet.
    """
    return next((rule for rule in rules if _fits(rule, facts, thickness_known=thickness_known)), None)


def _fits(rule: Rule, facts: SeriesFacts, *, thickness_known: bool) -> bool:
    description = facts.description or ""
    return (
        facts.modality in rule.modality
        and (not rule.body_part or facts.body_part in rule.body_part)
        and (not rule.description or any(found(pattern, description) for pattern in rule.description))
        and not any(found(pattern, description) for pattern in rule.not_description)
        and (not thickness_known or _is_thin_enough(rule, facts.slice_thickness_mm))
    )


def _is_thin_enough(rule: Rule, thickness_mm: float | None) -> bool:
    if rule.max_slice_thickness_mm is None:
        return True
    return thickness_mm is not None and 0 < thickness_mm <= rule.max_slice_thickness_mm
