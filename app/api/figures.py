"""Figures as answers show them, each type with its unit and its digits; and what every answer's document is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def rounded(digits: int) -> AfterValidator:
    """Digits beyond what the figure can mean are noise to a reader; adding 0.0 turns -0.0 into 0.0."""
    return AfterValidator(lambda value: round(value, digits) + 0.0)


Probability = Annotated[float, Field(ge=0, le=1), rounded(5)]
Millimetres = Annotated[float, rounded(3)]
CubicMillimetres = Annotated[float, rounded(1)]
HounsfieldUnits = Annotated[float, rounded(1)]
Index = Annotated[float, rounded(3)]
Point = tuple[Millimetres, Millimetres, Millimetres]
IndexPoint = tuple[Index, Index, Index]
Percent = Annotated[float, rounded(1)]
Days = Annotated[float, rounded(1)]


class Answer(BaseModel):
    """Made from a record with the same attributes; never changed."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Notice(Answer):
    """One remark about the scan."""

    code: str = Field(description="Stable identifier of the remark.")
    message: str = Field(description="A sentence for a person; never names the patient.")
    values: dict[str, Any] = Field(default_factory=dict, description="The figures behind the message.")
