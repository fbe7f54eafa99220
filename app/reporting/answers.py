"""The form of every answer of a guideline: what it says, why, from what, and what it lacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

GuidelineName = Literal["lung_rads_v2022", "fleischner_2017", "bts_2015"]


class Answer(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Rule(Answer):
    """The rule that decided."""

    id: str = Field(description="Stable identifier of the rule.")
    sentence: str = Field(description="The rule in words.")


class MissingInput(Answer):
    """Something that was not told."""

    name: str = Field(description="Field of the context, the nodule or the exam.")
    why: str = Field(description="What it would decide.")
    formula_reference: Any = Field(
        default=None,
        description="In a risk formula: the value at which its term is zero. It is named, never assumed.",
    )


class GuidelineAnswer(Answer):
    """What one guideline says to one nodule or exam."""

    guideline: GuidelineName = Field(description="Which guideline.")
    category: str | None = Field(description="Its category; null where none can be assigned.")
    management: str | None = Field(description="What it recommends, in our words; null without a category.")
    rule: Rule | None = Field(description="The rule that fired; null without a category.")
    inputs_used: dict[str, Any] = Field(description="What the answer rests on, with units in the names.")
    inputs_missing: list[MissingInput] = Field(description="What was not told and could change the answer.")
    cannot_be_assigned: str | None = Field(description="Why there is no category; null where there is one.")
    notes: list[str] = Field(description="What a reader has to know beside it.")
    source: str = Field(description="Where the rules are published.")


@dataclass(frozen=True)
class Ruling:
    """A category and the rule that gave it."""

    category: str
    rule_id: str
    sentence: str
    management: str
    missing: tuple[MissingInput, ...] = ()
    """Not needed for this category, but able to change it."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Undecided:
    """Why no rule can be applied."""

    reason: str
    missing: tuple[MissingInput, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guideline:
    """A guideline's name and source."""

    name: GuidelineName
    source: str

    def answer(
        self, outcome: Ruling | Undecided, used: Mapping[str, Any], missing: Sequence[MissingInput] = ()
    ) -> GuidelineAnswer:
        """The public form of an outcome; each missing input once."""
        decided = outcome if isinstance(outcome, Ruling) else None
        lacking = {item.name: item for item in (*missing, *outcome.missing)}
        return GuidelineAnswer(
            guideline=self.name,
            category=decided and decided.category,
            management=decided and decided.management,
            rule=decided and Rule(id=decided.rule_id, sentence=decided.sentence),
            inputs_used=dict(used),
            inputs_missing=list(lacking.values()),
            cannot_be_assigned=outcome.reason if isinstance(outcome, Undecided) else None,
            notes=list(outcome.notes),
            source=self.source,
        )


def lacks(**named: str) -> tuple[MissingInput, ...]:
    """Missing inputs by name, each with what it would decide."""
    return tuple(MissingInput(name=name, why=why) for name, why in named.items())
