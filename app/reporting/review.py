"""What a reader decided about an answer: accepted, rejected, added. Kept apart from what the networks said."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MOST_DECISIONS, MOST_ADDED = 1000, 100

_NO_CONTROL = r"^[^\\=\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
"""DICOM's person names take no backslash, no equals sign and no control character."""


def _trimmed(name: str) -> str:
    trimmed = name.strip()
    if not trimmed.strip("^"):
        raise ValueError("a name is needed")
    return trimmed


def _printable(text: str) -> str:
    if any(ord(character) < 32 and character not in "\n\t" for character in text):
        raise ValueError("control characters do not belong into a note")
    return text


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=_NO_CONTROL), AfterValidator(_trimmed)]
Note = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Coordinate = Annotated[float, Field(ge=-1e5, le=1e5)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Decision(_Told):
    """About one nodule of the answer."""

    nodule_id: Annotated[str, Field(max_length=64)] = Field(description="Of the answer.")
    decision: Literal["accepted", "rejected"] = Field(description="Whether the reader takes it for a nodule.")
    note: Note = Field(default="", description="In the reader's words; nothing of the patient belongs here.")


class AddedNodule(_Told):
    """One that the networks did not report."""

    center_lps_mm: tuple[Coordinate, Coordinate, Coordinate] = Field(description="(x, y, z) in patient LPS mm.")
    diameter_mm: Annotated[float, Field(gt=0, le=200)] = Field(description="As the reader measured it, in mm.")
    note: Note = Field(default="", description="In the reader's words; nothing of the patient belongs here.")


class Review(_Told):
    """A reader's decisions, whole: each revision replaces the one before."""

    reviewer: Name = Field(description="Who decides; as in DICOM, Family^Given, or as it is said.")
    decisions: Annotated[tuple[Decision, ...], Field(max_length=MOST_DECISIONS)] = Field(
        default=(), description="One for each nodule that was decided on."
    )
    added: Annotated[tuple[AddedNodule, ...], Field(max_length=MOST_ADDED)] = Field(
        default=(), description="Nodules that the reader saw and the networks did not report."
    )
    finished: bool = Field(default=False, description="Whether the reader stands by it: then the SR is verified.")

    def decision_on(self, nodule_id: str) -> Decision | None:
        """What was decided on a nodule; None for nothing yet."""
        return next((one for one in self.decisions if one.nodule_id == nodule_id), None)

    def count(self, decision: Literal["accepted", "rejected"]) -> int:
        """Nodules of the answer with this decision."""
        return sum(1 for one in self.decisions if one.decision == decision)


class KeptReview(Review):
    """A revision as it is stored."""

    revision: Annotated[int, Field(ge=1)] = Field(description="Counts from 1.")
    updated_at: datetime = Field(description="When it was stored, UTC.")
