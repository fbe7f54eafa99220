"""The contract between training and service: one `manifest.json` in each `model_store/<name>/<version>/`.

Networks keep their post-processing with them. The two kinds a manifest can name:

Detector (`heat map decoded in the graph`)
    input   ``volume``  float32 (1, 1, z, y, x), network units, axes a multiple of ``shape_multiple``
    outputs ``boxes``   float32 (1, k, 6), order of `app.inference.boxes`, index coordinates of the input
            ``scores``  float32 (1, k), probabilities by falling order

Characteriser (`axial crops`)
    input   ``crops``                   float32 (n, s, rows, columns), network units, any n and s
    outputs ``nodule_probability``      float32 (n,)   calibrated
            ``malignancy_probability``  float32 (n,)   calibrated
            ``attributes``              float32 (n, a) in the order of ``attribute_names``
            ``mask_probability``        float32 (n, s, rows, columns)

Characteriser of another make (`axial-2d`: one slice for each candidate; `crops-3d`: a block of slices)
    input and outputs by the names and in the layout that the manifest states (`app.inference.network_heads`);
    a nodule probability, a malignancy probability, or both; no mask and no attributes

Verdict (optional: the characteriser without its mask, for the many candidates that will not be outlined)
    input   ``crops``, outputs ``nodule_probability``, ``malignancy_probability``, ``attributes``: the same bits

Each network is its fp32 file, and may have variants (`NetworkVariant`): the same function in less time, with what it
costs in accuracy. A variant keeps inputs and outputs, and the operating points hold for all of them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from app.imaging.errors import ModelError
from app.imaging.preprocessing import CropSpec, PreprocessingSpec
from app.inference.network_heads import BlockInput, Head, SliceInput

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="A name inside the folder.")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]

FP32, AUTO = "fp32", "auto"
"""The network as it was exported; and the word for "whatever is fastest here". No variant may have these names."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Parity(_Strict):
    """torch against ONNX Runtime on the same input, measured at export."""

    max_abs_difference: float = Field(ge=0)
    opset: int
    torch_version: str
    onnxruntime_version: str


class VariantFigure(_Strict):
    """A measure of accuracy, of a variant and of the fp32 network on the same cases."""

    name: str
    value: float
    fp32: float
    n: int = Field(ge=1)
    data: str


class NetworkVariant(_Strict):
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


class NetworkFile(_Strict):
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


class DetectorEntry(NetworkFile):
    """Stage 1: boxes over the lung volume."""

    kind: Literal["boxes-3d"] = "boxes-3d"
    score_threshold: float = Field(ge=0, le=1, description="Candidates below this are not characterised.")
    nms_iou: float = Field(default=0.2, ge=0, le=1)
    max_candidates: int = Field(default=100, ge=1)
    halo_voxels: int = Field(default=32, ge=0, description="Context a tile needs around its core, in voxels.")
    bytes_per_voxel: float | None = Field(
        default=None, gt=0, description="Memory of a pass over its input, measured; null: not measured."
    )


class CharacteriserEntry(NetworkFile):
    """Stage 2: what a candidate is."""

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


_KINDS = ("axial-crops", "axial-2d", "crops-3d")


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


class OperatingPointEntry(_Strict):
    """A named threshold on the final nodule probability, and what it was measured to mean."""

    threshold: float = Field(ge=0, le=1)
    description: str
    sensitivity: float | None = Field(default=None, ge=0, le=1)
    false_positives_per_scan: float | None = Field(default=None, ge=0)
    measured_on: str | None = None


class Malignancy(_Strict):
    """What the malignancy probability was trained to mean."""

    meaning: str
    threshold: float = Field(default=0.5, ge=0, le=1)


class Metric(_Strict):
    """A measured figure with its data set, size and interval."""

    name: str
    value: float
    ci95: tuple[float, float] | None = None
    n: int = Field(ge=1)
    data: str


class Provenance(_Strict):
    """Where the networks came from."""

    code: str = Field(description="Commit of the repository that trained them.")
    config: str = Field(description="Name of the training configuration.")
    seed: int
    data: tuple[str, ...]
    data_licence: str
    created: str = Field(description="ISO 8601, UTC.")


class ModelManifest(_Strict):
    """Everything the service must know to run a model as it was trained."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.-]+)?$")]
    intended_use: str
    preprocessing: PreprocessingSpec
    preprocessing_digest: Sha256 = Field(
        description="sha256 of the prepared reference phantom; loading recomputes it (see reference_digest)."
    )
    detector: DetectorEntry
    characteriser: AnyCharacteriser
    operating_points: dict[str, OperatingPointEntry] = Field(min_length=1)
    default_operating_point: str
    malignancy: Malignancy | None = Field(
        default=None, description="Null only where the characteriser does not judge it."
    )
    metrics: tuple[Metric, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _default_exists(self) -> ModelManifest:
        if self.default_operating_point not in self.operating_points:
            raise ValueError(
                f"default_operating_point {self.default_operating_point!r} is not in {sorted(self.operating_points)}"
            )
        return self

    @model_validator(mode="after")
    def _malignancy_has_a_meaning(self) -> ModelManifest:
        judged = isinstance(self.characteriser, CharacteriserEntry) or self.characteriser.malignancy is not None
        if judged != (self.malignancy is not None):
            raise ValueError("`malignancy` says what the characteriser's malignancy means: both are there, or neither")
        return self


def load_manifest(folder: Path) -> ModelManifest:
    """Read and validate ``folder/manifest.json``.

    Raises
    ------
    ModelError
        ``manifest_missing`` or ``manifest_invalid``, naming the file and the fields.
    """
    return load_manifest_and_sha256(folder)[0]


def load_manifest_and_sha256(folder: Path) -> tuple[ModelManifest, str]:
    """`load_manifest`, and the sha256 of the very bytes that were read: the identity of the model."""
    path = folder / "manifest.json"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {type(error).__name__}", code="manifest_missing", values={"file": str(path)}
        ) from error
    try:
        manifest = ModelManifest.model_validate_json(content)
    except ValidationError as error:
        # pydantic names the kind of the characteriser in the path, where the file has no such level
        paths = [[str(part) for part in e["loc"] if part not in _KINDS] for e in error.errors()]
        faults = [{"field": ".".join(path), "fault": e["msg"]} for path, e in zip(paths, error.errors(), strict=True)]
        raise ModelError(
            f"{path} is not a valid manifest: {faults}",
            code="manifest_invalid",
            values={"file": str(path), "faults": faults},
        ) from error
    return manifest, hashlib.sha256(content).hexdigest()
