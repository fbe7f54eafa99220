"""The kinds of detector that a manifest can name; their inputs and outputs stand in `app.inference.manifest`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from app.inference.network_files import NetworkFile, Strict

Strides = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


DETECTOR_KINDS = ("boxes-3d", "heat-map", "retinanet-heads")


class CandidateRules(NetworkFile):
    """What every kind of detector says of its candidates."""

    score_threshold: float = Field(ge=0, le=1, description="Candidates below this are not characterised.")
    nms_iou: float = Field(default=0.2, ge=0, le=1)
    max_candidates: int = Field(default=100, ge=1)
    bytes_per_voxel: float | None = Field(
        default=None, gt=0, description="Memory of a pass over its input, measured; null: not measured."
    )
    within_lungs: bool = Field(
        default=True, description="Whether a candidate whose centre lies outside the widened lungs is dropped."
    )


class DetectorEntry(CandidateRules):
    """Stage 1: boxes over the lung volume."""

    kind: Literal["boxes-3d"] = "boxes-3d"
    halo_voxels: int = Field(default=32, ge=0, description="Context a tile needs around its core, in voxels.")


class HeatMapEntry(CandidateRules):
    """Stage 1: a heat map of centres with sizes beside it, decoded by the service."""

    kind: Literal["heat-map"]
    halo_voxels: int = Field(default=32, ge=0, description="Context a tile needs around its core, in voxels.")
    stride_zyx: Strides = Field(description="Voxels of the input between neighbouring cells of the map.")
    first_cell_zyx: tuple[float, float, float] | None = Field(
        default=None,
        description="Index in the input of the middle of cell (0, 0, 0); null: (stride - 1) / 2 along each axis.",
    )
    heat: Literal["probability", "logit"] = Field(default="logit", description="What the map holds.")
    size: Literal["voxels", "log-voxels"] = Field(
        default="voxels", description="What the size map holds: side lengths of the box, or their logarithm."
    )
    peak_cells: int = Field(default=3, ge=1, description="A cell speaks if it is the highest of a cube of this side.")
    top: int = Field(default=128, ge=1, description="Cells of a pass that become boxes at most.")

    @model_validator(mode="after")
    def _peak_is_centred(self) -> HeatMapEntry:
        if self.peak_cells % 2 == 0:
            raise ValueError(f"peak_cells must be odd, got {self.peak_cells}")
        return self


class AnchorLevel(Strict):
    """One map of a pyramid: where its anchors lie and how large they are."""

    stride_zyx: Strides = Field(description="Voxels of the input between neighbouring cells.")
    first_cell_zyx: tuple[float, float, float] = Field(
        description="Index in the input of the centre of the anchors of cell (0, 0, 0)."
    )
    sizes_zyx: tuple[tuple[float, float, float], ...] = Field(
        min_length=1, description="Side lengths of the anchors of a cell in voxels, in the order of the channels."
    )


class WindowRule(Strict):
    """How maps of a volume larger than one window come together: overlapping windows, averaged before decoding."""

    shape_zyx: tuple[int, int, int] = Field(description="Window in voxels. A volume of fewer voxels is one pass.")
    overlap: float = Field(ge=0, lt=1, description="Share of a window that its neighbour covers again.")

    @model_validator(mode="after")
    def _is_a_window(self) -> WindowRule:
        if min(self.shape_zyx) < 1:
            raise ValueError(f"shape_zyx must be positive, got {self.shape_zyx}")
        return self


class RetinaNetEntry(CandidateRules):
    """Stage 1: the heads of an anchor-based network as maps, blended and decoded by the service."""

    kind: Literal["retinanet-heads"]
    levels: tuple[AnchorLevel, ...] = Field(min_length=1, description="Maps from the finest to the coarsest.")
    multiple_zyx: tuple[int, int, int] = Field(description="What the network's input must be a multiple of.")
    window: WindowRule
    delta_weights_zyx: tuple[float, float, float, float, float, float] = Field(
        default=(1.0,) * 6, description="What the deltas are divided by: shifts z, y, x, then log sizes z, y, x."
    )
    max_log_size: float = Field(
        default=4.135166556742356, gt=0, description="Log of the largest growth of an anchor; the default is 62.5."
    )
    top_per_level: int = Field(default=1000, ge=1, description="Anchors of a level that become boxes at most.")
    minimum_side_voxels: float = Field(
        default=1.0, ge=0, description="Boxes with a shorter side, once clipped to the volume, are dropped."
    )

    @model_validator(mode="after")
    def _windows_fit_the_maps(self) -> RetinaNetEntry:
        if any(n % m for n, m in zip(self.window.shape_zyx, self.multiple_zyx, strict=True)):
            raise ValueError(f"window {self.window.shape_zyx} must be a multiple of {self.multiple_zyx}")
        return self


def _kind_of_detector(entry: object) -> str:
    """The kind that an entry names; models of before there was a choice name none."""
    return str(entry.get("kind", "boxes-3d") if isinstance(entry, dict) else getattr(entry, "kind", ""))


AnyDetector = Annotated[
    Annotated[DetectorEntry, Tag("boxes-3d")]
    | Annotated[HeatMapEntry, Tag("heat-map")]
    | Annotated[RetinaNetEntry, Tag("retinanet-heads")],
    Discriminator(_kind_of_detector),
]
