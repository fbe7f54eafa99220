"""The contract between training and service: one `manifest.json` in each `model_store/<name>/<version>/`.

What a manifest can name. All detectors have the input ``volume``, float32 (1, 1, z, y, x), network units.

Detector ``boxes-3d``: decoded in its graph. Axes of the input are a multiple of ``shape_multiple``
    outputs ``boxes``   float32 (1, k, 6), order of `app.inference.boxes`, index coordinates of the input
            ``scores``  float32 (1, k), probabilities by falling order

Detector ``heat-map``: a map of centres, decoded by `app.inference.heat_maps`. Axes as above
    outputs ``heat``    float32 (1, 1, d, h, w), probability or logit of a centre in each cell
            ``size``    float32 (1, 1 or 3, d, h, w), side of the box or its sides z, y, x
            ``offset``  float32 (1, 3, d, h, w), optional: centre less middle of the cell, voxels, z, y, x

Detector ``retinanet-heads``: heads of an anchor-based network, decoded by `app.inference.retinanet`
    outputs ``logits_0`` ...  float32 (1, a, d, h, w), one map for each of ``levels``, a anchors a cell
            ``deltas_0`` ...  float32 (1, 6 a, d, h, w), anchor by anchor: shift z, y, x over the anchor's side, log of
                              the growth z, y, x

A detector may stand alone. Else there is a second stage:

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
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from app.imaging.errors import ModelError, NoCharacteriser
from app.imaging.preprocessing import PreprocessingSpec
from app.inference.characteriser_kinds import (
    CHARACTERISER_KINDS,
    AnyCharacteriser,
    AxialSliceEntry,
    CharacteriserEntry,
    CropBlockEntry,
)
from app.inference.detector_kinds import DETECTOR_KINDS, AnyDetector, DetectorEntry, HeatMapEntry, RetinaNetEntry
from app.inference.network_files import (
    AUTO,
    FP32,
    NetworkFile,
    NetworkVariant,
    Parity,
    Sha256,
    Strict,
    VariantFigure,
)

__all__ = [
    "AUTO",
    "FP32",
    "AnyCharacteriser",
    "AnyDetector",
    "AxialSliceEntry",
    "CharacteriserEntry",
    "CropBlockEntry",
    "DetectorEntry",
    "HeatMapEntry",
    "Malignancy",
    "Metric",
    "ModelManifest",
    "NetworkFile",
    "NetworkVariant",
    "OperatingPointEntry",
    "Parity",
    "Provenance",
    "PublishedFigure",
    "RetinaNetEntry",
    "VariantFigure",
    "load_manifest",
    "load_manifest_and_sha256",
    "no_characteriser",
]  # fmt: skip


class OperatingPointEntry(Strict):
    """A named threshold on the final nodule probability, and what it was measured to mean."""

    threshold: float = Field(ge=0, le=1)
    description: str
    sensitivity: float | None = Field(default=None, ge=0, le=1)
    false_positives_per_scan: float | None = Field(default=None, ge=0)
    measured_on: str | None = None


class Malignancy(Strict):
    """What the malignancy probability was trained to mean."""

    meaning: str
    threshold: float = Field(default=0.5, ge=0, le=1)


class Metric(Strict):
    """A measured figure with its data set, size and interval."""

    name: str
    value: float
    ci95: tuple[float, float] | None = None
    n: int = Field(ge=1)
    data: str


class PublishedFigure(Strict):
    """A figure that somebody else states of the network; nothing here has measured it."""

    name: str
    value: float
    data: str
    published_by: str = Field(description="Who states it, and where.")


class Provenance(Strict):
    """Where the networks came from."""

    code: str = Field(description="Commit of the repository that trained them.")
    config: str = Field(description="Name of the training configuration.")
    seed: int
    data: tuple[str, ...]
    data_licence: str
    created: str = Field(description="ISO 8601, UTC.")


class ModelManifest(Strict):
    """Everything the service must know to run a model as it was trained."""

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.-]+)?$")]
    intended_use: str
    preprocessing: PreprocessingSpec
    preprocessing_digest: Sha256 = Field(
        description="sha256 of the prepared reference phantom; loading recomputes it (see reference_digest)."
    )
    detector: AnyDetector
    characteriser: AnyCharacteriser | None = Field(
        default=None, description="Null: a detector alone. Its nodules have no malignancy, no outline and no volume."
    )
    operating_points: dict[str, OperatingPointEntry] = Field(min_length=1)
    default_operating_point: str
    malignancy: Malignancy | None = Field(default=None, description="Null only where no characteriser judges it.")
    metrics: tuple[Metric, ...] = ()
    published: tuple[PublishedFigure, ...] = Field(default=(), description="Figures of whoever made the network.")
    provenance: Provenance

    @model_validator(mode="after")
    def _is_whole(self) -> ModelManifest:
        if self.default_operating_point not in self.operating_points:
            raise ValueError(
                f"default_operating_point {self.default_operating_point!r} is not in {sorted(self.operating_points)}"
            )
        return self

    @model_validator(mode="after")
    def _malignancy_has_a_meaning(self) -> ModelManifest:
        entry = self.characteriser
        judged = entry is not None and (isinstance(entry, CharacteriserEntry) or entry.malignancy is not None)
        if judged != (self.malignancy is not None):
            raise ValueError("`malignancy` says what the characteriser's malignancy means: both are there, or neither")
        return self

    @property
    def second_stage(self) -> AnyCharacteriser:
        """The characteriser of a model that has one.

        Raises
        ------
        NoCharacteriser
        """
        if self.characteriser is None:
            raise no_characteriser(f"{self.name} {self.version}")
        return self.characteriser

    @property
    def networks(self) -> dict[str, NetworkFile]:
        """The entry of each network that the model has, by role."""
        networks: dict[str, NetworkFile] = {"detector": self.detector}
        if self.characteriser is not None:
            networks["characteriser"] = self.characteriser
        return networks


def no_characteriser(model: str) -> NoCharacteriser:
    """What to raise where the second stage of a model without one is needed."""
    return NoCharacteriser(
        f"{model} has a detector only: it tells no malignancy, draws no outline and explains nothing. Use a model with "
        "a characteriser, or import the detector with another model's: --with-characteriser NAME:VERSION.",
        values={"model": model},
    )


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
        faults = [{"field": _field(e["loc"], e["type"]), "fault": e["msg"]} for e in error.errors()]
        raise ModelError(
            f"{path} is not a valid manifest: {faults}",
            code="manifest_invalid",
            values={"file": str(path), "faults": faults},
        ) from error
    return manifest, hashlib.sha256(content).hexdigest()


def _field(location: tuple[int | str, ...], fault: str) -> str:
    """The path of a field as the file has it: pydantic puts the kind of a network into it, or leaves ``kind`` out."""
    parts = [str(part) for part in location if part not in (*DETECTOR_KINDS, *CHARACTERISER_KINDS)]
    return ".".join([*parts, "kind"] if fault == "union_tag_invalid" else parts)
