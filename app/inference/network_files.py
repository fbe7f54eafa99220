"""What a manifest says of one network file, whichever stage it belongs to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="A name inside the folder.")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]

FP32, AUTO = "fp32", "auto"
"""The network as it was exported; and the word for "whatever is fastest here". No variant may have these names."""


class Strict(BaseModel):
    """A part of a manifest: frozen, and refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Parity(Strict):
    """torch against ONNX Runtime on the same input, measured at export."""

    max_abs_difference: float = Field(ge=0)
    opset: int
    torch_version: str
    onnxruntime_version: str


class VariantFigure(Strict):
    """A measure of accuracy, of a variant and of the fp32 network on the same cases."""

    name: str
    value: float
    fp32: float
    n: int = Field(ge=1)
    data: str


class NetworkVariant(Strict):
    """The same network in other arithmetic or another runtime; `training.variants` measures and writes it."""

    file: FileName
    sha256: Sha256
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    arithmetic: Literal["float32", "float16", "bfloat16", "int8"]
    device: Literal["cpu", "gpu"] = Field(default="cpu", description="Where it pays; elsewhere fp32 is run.")
    max_abs_difference: float = Field(ge=0, description="Largest difference of a probability from fp32.")
    figures: tuple[VariantFigure, ...] = ()
    seconds_ratio: float | None = Field(
        default=None, gt=0, description="Seconds over those of fp32, measured in turns; null: not measured."
    )
    bytes_per_voxel: float | None = Field(
        default=None, gt=0, description="Detector: memory of a pass over its input, measured."
    )


class NetworkFile(Strict):
    """One ONNX file, and its variants by name."""

    file: FileName
    sha256: Sha256 = Field(description="sha256 of the file.")
    parity: Parity | None = Field(default=None, description="torch against ONNX Runtime, measured at export.")
    variants: dict[VariantName, NetworkVariant] = Field(
        default_factory=dict, description="The same network in other arithmetic or another runtime."
    )

    @model_validator(mode="after")
    def _names_are_free(self) -> NetworkFile:
        if taken := {FP32, AUTO} & self.variants.keys():
            raise ValueError(f"{sorted(taken)} cannot name a variant")
        return self
