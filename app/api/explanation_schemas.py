"""An explanation as clients see it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from app.api.figures import Millimetres, Point, Probability
from app.api.schemas import ModelIdentity, Nodule
from app.inference.explanation import Explanation, cells
from app.inference.findings import DISCLAIMER
from app.inference.findings import ModelIdentity as Identity
from app.reporting.attribute_words import attributes_in_words

MEANING = (
    "Mean fall of the log-odds of the probability when a block over this place is covered with lung. Positive: the "
    "place speaks for it. It says what the characterisation network looked at, not why, and leaves the detector out."
)
Importance = list[list[list[float]]]


class ImportanceGrid(BaseModel):
    """Where the importance lies: axial slices along the scan's own axes, rows to the back, columns to the left."""

    center_lps_mm: Point = Field(description="Middle (x, y, z), in LPS mm.")
    cell_mm: Millimetres = Field(description="Edge of a cell in-plane, in mm.")
    first_cell_mm: tuple[Millimetres, Millimetres] = Field(
        description="Where the middle of the first cell lies from the centre, along rows and columns, in mm."
    )
    slice_offsets_mm: list[Millimetres] = Field(description="Where each slice was taken from the centre, in mm.")


class NoduleExplanation(BaseModel):
    """Which places mattered for one nodule."""

    disclaimer: str = Field(description="What it must not be used for.")
    job_id: str = Field(description="The job.")
    nodule_id: str = Field(description="The nodule of its answer.")
    model: ModelIdentity = Field(description="The model that was asked.")
    nodule_probability: Probability = Field(
        description="That this is a nodule by the characterisation network alone, asked at the reported centre, 0 to 1."
    )
    malignancy_probability: Probability = Field(
        description="That it is malignant, in the sense of the answer's malignancy_meaning; asked likewise, 0 to 1."
    )
    meaning: str = Field(description="What importance means.")
    nodule_importance: Importance = Field(description="(slices, rows, columns) for nodule_probability, in log-odds.")
    malignancy_importance: Importance = Field(description="The same for malignancy_probability.")
    share_within_outline: Probability | None = Field(
        description="Share of what speaks for a nodule that lies within its outline, 0 to 1; null where nothing does."
    )
    grid: ImportanceGrid = Field(description="Where the cells lie.")
    attributes: dict[str, float] = Field(description="The nodule's attributes in the answer, 0 to 1.")
    words: list[str] = Field(description="The attributes in words, where their names are known.")
    picture: str = Field(description="Path of the same as a picture (PNG).")


def explanation_answer(
    explanation: Explanation, *, job_id: str, nodule: Nodule, model: Identity, picture: str
) -> NoduleExplanation:
    """The public form of an explanation."""
    spec, cell_px = explanation.spec, explanation.cell_px
    first_mm = ((cell_px - 1) / 2 - spec.size_px // 2) * spec.spacing_mm
    return NoduleExplanation(
        disclaimer=DISCLAIMER,
        job_id=job_id,
        nodule_id=nodule.id,
        model=ModelIdentity.model_validate(model),
        nodule_probability=explanation.nodule_probability,
        malignancy_probability=explanation.malignancy_probability,
        meaning=MEANING,
        nodule_importance=_rounded(cells(explanation.nodule_importance, cell_px)),
        malignancy_importance=_rounded(cells(explanation.malignancy_importance, cell_px)),
        share_within_outline=explanation.share_within_outline,
        grid=ImportanceGrid(
            center_lps_mm=explanation.center_lps_mm,
            cell_mm=cell_px * spec.spacing_mm,
            first_cell_mm=(first_mm, first_mm),
            slice_offsets_mm=list(spec.slice_offsets_mm),
        ),
        attributes=nodule.attributes,
        words=list(attributes_in_words(nodule.attributes)),
        picture=picture,
    )


def _rounded(values: NDArray[np.floating]) -> Importance:
    rounded: Importance = (np.round(values.astype(np.float64), 4) + 0.0).tolist()
    return rounded
