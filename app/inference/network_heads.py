"""How a network that was not made here takes its candidates and says what it says; fields of the manifest.

A head names one probability: which output of the graph, which column of it, and what has to be done to its numbers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.imaging.errors import ModelError

SliceLayout = Literal["nhwc", "nchw"]
BlockLayout = Literal["ncdhw", "ndhwc"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Head(_Strict):
    """One probability among the outputs of a graph."""

    output: str = Field(min_length=1, description="Name of the graph's output, float32 (n,) or (n, columns).")
    activation: Literal["logit", "softmax", "probability"] = Field(
        description="What the numbers are: `logit`, each column by itself; `softmax`, logits of columns that exclude "
        "one another; `probability`, taken as they are."
    )
    column: int = Field(default=0, ge=0, description="Column that means yes, counted from 0.")


class _ImageInput(_Strict):
    name: str = Field(min_length=1, description="Name of the graph's input, float32.")
    value_range: tuple[float, float] = Field(
        default=(0.0, 1.0), description="Numbers that the lower and the upper end of the crop's window become."
    )

    @model_validator(mode="after")
    def _range_is_one(self) -> _ImageInput:
        if self.value_range[0] == self.value_range[1]:
            raise ValueError(f"value_range must be two different numbers, got {self.value_range}")
        return self

    def scaled(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network units 0..1 in the numbers that the graph wants."""
        low, high = self.value_range
        return crops if (low, high) == (0.0, 1.0) else np.asarray(crops * (high - low) + low, np.float32)


class SliceInput(_ImageInput):
    """One axial slice for each candidate."""

    layout: SliceLayout = "nhwc"
    channels: int = Field(default=1, ge=1, le=16, description="Equal channels: 3 for a network made for photographs.")

    def arranged(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Crops (n, 1, rows, columns) as the graph takes them."""
        repeated = np.repeat(self.scaled(crops), self.channels, axis=1)
        return np.ascontiguousarray(np.moveaxis(repeated, 1, -1) if self.layout == "nhwc" else repeated)

    def shape(self, slices: int, size_px: int) -> tuple[int | str, ...]:
        """Axes after arranging; ``slices`` is 1."""
        del slices
        plane: tuple[int | str, ...] = (size_px, size_px)
        return ("n", *plane, self.channels) if self.layout == "nhwc" else ("n", self.channels, *plane)


class BlockInput(_ImageInput):
    """A block of slices for each candidate, from feet to head."""

    layout: BlockLayout = "ncdhw"

    def arranged(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Crops (n, slices, rows, columns) as the graph takes them."""
        scaled = self.scaled(crops)
        return scaled[:, None] if self.layout == "ncdhw" else scaled[..., None]

    def shape(self, slices: int, size_px: int) -> tuple[int | str, ...]:
        """Axes after arranging."""
        block: tuple[int | str, ...] = (slices, size_px, size_px)
        return ("n", 1, *block) if self.layout == "ncdhw" else ("n", *block, 1)


def probabilities(head: Head, values: NDArray[np.floating], count: int) -> NDArray[np.float32]:
    """What a head says of each of ``count`` candidates, float32 (n,).

    Raises
    ------
    ModelError
        ``network_contract`` when the output has another shape; ``network_output_invalid`` when what should be
        probabilities are none: an answer of 3.2 is a logit that the manifest calls a probability.
    """
    table = values.reshape(count, 1) if values.shape == (count,) else values
    if table.ndim != 2 or len(table) != count or table.shape[1] <= head.column:
        raise ModelError(
            f"Output {head.output} has shape {values.shape} for {count} candidates; the manifest promises (n, columns) "
            f"and reads column {head.column}.",
            code="network_contract",
            values={"output": head.output, "found": list(values.shape), "column": head.column},
        )
    table = table.astype(np.float64)
    if head.activation == "probability":
        column = table[:, head.column]
        if ((column < 0) | (column > 1)).any():
            raise ModelError(
                f"Output {head.output} gave numbers outside 0..1, and the manifest calls them probabilities. If they "
                "are logits, say `logit` or `softmax`.",
                code="network_output_invalid",
                values={"output": head.output, "least": float(column.min()), "largest": float(column.max())},
            )
        return column.astype(np.float32)
    others = table[:, [head.column]] if head.activation == "logit" else table
    # A logit alone is a class against one whose logit is 0.
    rivals = np.concatenate([others, np.zeros((count, 1))], axis=1) if head.activation == "logit" else others
    largest = rivals.max(axis=1, keepdims=True)
    shares = np.exp(rivals - largest)
    chosen = shares[:, 0 if head.activation == "logit" else head.column]
    return np.asarray(chosen / shares.sum(axis=1), np.float32)
