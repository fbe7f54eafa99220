"""What the second stage of a model may be: networks of this house, and those of another make."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from app.imaging.preprocessing import CropSpec
from app.inference.network_files import NetworkFile
from app.inference.network_heads import BlockInput, Head, SliceInput


class CharacteriserEntry(NetworkFile):
    """Stage 2: what a candidate is."""

    taken_from: str | None = Field(
        default=None, description="NAME:VERSION of the model whose characteriser this is, beside a foreign detector."
    )

    kind: Literal["axial-crops"] = "axial-crops"
    verdict: NetworkFile | None = Field(
        default=None, description="The same network cut off before its mask; a variant of it has the name of the whole."
    )
    crop: CropSpec
    attribute_names: tuple[str, ...] = ()
    detector_weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Final log-odds are (1 - w) * characteriser + w * detector; chosen on validation data.",
    )


class _ForeignEntry(NetworkFile):
    """What networks of another make have in common."""

    crop: CropSpec
    nodule: Head | None = Field(
        default=None, description="That it is a nodule; without it the detector's probability stands."
    )
    malignancy: Head | None = Field(default=None, description="That it is malignant; without it nothing is said of it.")
    detector_weight: float = Field(
        default=0.0, ge=0, le=1, description="Final log-odds are (1 - w) * characteriser + w * detector."
    )

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """None are read."""
        return ()

    @property
    def verdict(self) -> NetworkFile | None:
        """There is no mask to leave out."""
        return None

    @model_validator(mode="after")
    def _says_something(self) -> _ForeignEntry:
        if self.nodule is None and self.malignancy is None:
            raise ValueError("a characteriser says `nodule`, `malignancy` or both")
        return self


class AxialSliceEntry(_ForeignEntry):
    """Stage 2 by a network of another make that sees one axial slice of each candidate."""

    kind: Literal["axial-2d"]
    input: SliceInput

    @model_validator(mode="after")
    def _one_slice(self) -> AxialSliceEntry:
        if len(self.crop.slice_offsets_mm) != 1:
            raise ValueError(f"kind axial-2d sees one slice; slice_offsets_mm are {self.crop.slice_offsets_mm}")
        return self


class CropBlockEntry(_ForeignEntry):
    """Stage 2 by a network of another make that sees a block around each candidate."""

    kind: Literal["crops-3d"]
    input: BlockInput


CHARACTERISER_KINDS = ("axial-crops", "axial-2d", "crops-3d")


def _kind_of(entry: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    """Manifests that name no kind are of the first there was."""
    kind = entry.get("kind", "axial-crops") if isinstance(entry, dict) else getattr(entry, "kind", "")
    return str(kind)


AnyCharacteriser = Annotated[
    Annotated[CharacteriserEntry, Tag("axial-crops")]
    | Annotated[AxialSliceEntry, Tag("axial-2d")]
    | Annotated[CropBlockEntry, Tag("crops-3d")],
    Discriminator(_kind_of),
]
