"""Model folders ``<store>/<name>/<version>/``: find, verify by sha256, load, warm up.

A folder is trusted for nothing: every file is a regular file inside it, hashed, and loaded from the very bytes that
were hashed. A model that passes `load_model` has the inputs and outputs its manifest promises and was trained on
arrays that this installation's preprocessing reproduces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.inference.detector_kinds import HeatMapEntry, RetinaNetEntry
from app.inference.findings import ModelIdentity
from app.inference.foreign_characteriser import ForeignCharacteriser, behind_manifest
from app.inference.heat_maps import decode_heat_maps
from app.inference.manifest import (
    FP32,
    AnyCharacteriser,
    CharacteriserEntry,
    ModelManifest,
    NetworkFile,
    load_manifest,
    load_manifest_and_sha256,
    no_characteriser,
)
from app.inference.network import Array, Network, SessionOptions, gpu_count
from app.inference.opening import (
    CHARACTERISER,
    VERDICT,
    OpenNetwork,
    detector_contract,
    open_entry,
    open_unchecked,
    read_verified,
    stranded,
)
from app.inference.openvino_network import has_openvino
from app.inference.precision import ROLES, Machine, choose_precision
from app.inference.retinanet import decode_heads
from app.phantom.reference import reference_digest


@dataclass(frozen=True)
class ModelFolder:
    """Where one version of a model lies; not yet read."""

    path: Path
    name: str
    version: str


@dataclass(frozen=True)
class LoadedModel:
    """A verified model, ready to run."""

    manifest: ModelManifest
    identity: ModelIdentity
    detector: Network
    characteriser: Network
    """Of a model that has a detector only, one that refuses to be asked (``no_characteriser``)."""
    execution_provider: str
    notices: tuple[Notice, ...] = ()
    """What whoever runs it should know, e.g. that it fell back to the CPU."""
    precision: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(ROLES, FP32))
    """By network: ``fp32`` or the name of its variant that runs."""
    verdict: Network | None = None
    """The characteriser without its mask, where the model has it for the precision that runs."""

    @property
    def judge(self) -> Network:
        """What judges candidates: the cheapest network that gives the characteriser's probabilities."""
        return self.verdict or self.characteriser

    @property
    def detector_bytes_per_voxel(self) -> float | None:
        """Memory of the running detector over its input, as measured; None where it was not."""
        entry, name = self.manifest.detector, self.precision["detector"]
        return entry.bytes_per_voxel if name == FP32 else entry.variants[name].bytes_per_voxel


def list_models(store: Path) -> list[ModelFolder]:
    """Every ``<name>/<version>/manifest.json`` of a store, by name, then from the oldest to the newest version.

    Raises
    ------
    ModelError
        ``store_missing`` when the folder does not exist.
    """
    if not store.is_dir():
        raise ModelError(
            f"The model store {store} is no folder; set the model store's path.",
            code="store_missing",
            values={"store": str(store)},
        )
    folders = (manifest.parent for manifest in store.glob("*/*/manifest.json"))
    models = [ModelFolder(folder, folder.parent.name, folder.name) for folder in folders]
    return sorted(models, key=lambda model: (model.name, _version_key(model.version)))


def find_model(store: Path, name: str | None = None, version: str | None = None) -> ModelFolder:
    """The newest model of a store that fits; with no name, there must be only one to choose from.

    Raises
    ------
    ModelError
        ``model_unknown`` when none fits, ``model_ambiguous`` when several names do; both list what is there.
    """
    return newest_fitting(list_models(store), name, version)


def newest_fitting(models: Sequence[ModelFolder], name: str | None, version: str | None) -> ModelFolder:
    """The last of the models that fits; they are in the order of `list_models`.

    Raises
    ------
    ModelError
        As `find_model`.
    """
    fitting = [m for m in models if name in (None, m.name) and version in (None, m.version)]
    names = sorted({m.name for m in fitting})
    if len(names) == 1:
        return fitting[-1]
    wanted = ":".join(part or "any" for part in (name, version))
    present = [f"{m.name}:{m.version}" for m in models]
    raise ModelError(
        f"{'Several models fit' if names else 'No model fits'} {wanted}; the store holds {present}.",
        code="model_ambiguous" if names else "model_unknown",
        values={"name": name, "version": version, "available": present},
    )


def verify_model(folder: Path) -> ModelManifest:
    """Check a folder against its manifest: every file there, regular, inside it, and of the stated sha256.

    Raises
    ------
    ModelError
        ``manifest_missing``, ``manifest_invalid``, ``file_missing``, ``file_not_regular`` or ``hash_mismatch``; the
        values hold the file and, for a hash, what was expected and what was found.
    """
    manifest = load_manifest(folder)
    entries = list(manifest.networks.values())
    if manifest.characteriser is not None and manifest.characteriser.verdict is not None:
        entries.append(manifest.characteriser.verdict)
    for entry in entries:
        read_verified(folder, entry)
        for variant in entry.variants.values():
            read_verified(folder, variant)
    return manifest


def load_model(folder: Path, session: SessionOptions, precision: str = FP32) -> LoadedModel:
    """Verify a model folder and open its networks.

    Parameters
    ----------
    folder
        ``<store>/<name>/<version>``.
    session
        Device, threads, memory.
    precision
        ``fp32``, the name of a variant in the manifest, or ``auto``. What runs is in the answer's ``precision``: a
        variant for GPUs that finds none gives way to fp32, with a notice.

    Raises
    ------
    ModelError
        As `verify_model`, `app.inference.network.open_network` and `app.inference.precision.choose_precision`;
        ``network_contract`` when inputs or outputs are not what the manifest's kind promises;
        ``preprocessing_mismatch`` when the preprocessing of this installation gives other arrays than the networks
        were trained on.
    """
    manifest, sha256 = load_manifest_and_sha256(folder)
    crop = None if manifest.characteriser is None else manifest.characteriser.crop
    found = reference_digest(manifest.preprocessing, crop)
    if found != manifest.preprocessing_digest:
        raise ModelError(
            "The preprocessing of this installation does not reproduce the arrays that the networks were trained "
            f"on: the reference digest is {found}, the manifest says {manifest.preprocessing_digest}. Install the "
            "versions of the lock file, or export the model again.",
            code="preprocessing_mismatch",
            values={"expected": manifest.preprocessing_digest, "found": found},
        )
    chosen = choose_precision(manifest, precision, session, Machine(gpu_count() > 0, has_openvino()))
    contract = detector_contract(manifest.detector)
    opened: dict[str, OpenNetwork | ForeignCharacteriser] = {
        "detector": open_entry(folder, manifest.detector, chosen["detector"], session, contract)
    }
    if manifest.characteriser is not None:
        entry = manifest.characteriser
        opened["characteriser"] = _opened_characteriser(folder, entry, chosen["characteriser"], session)
    for role, network in opened.items():
        if stranded(manifest.networks[role], chosen[role], network):
            return _with_fp32_instead(folder, session, chosen[role])
    loaded = LoadedModel(
        manifest=manifest,
        identity=ModelIdentity(manifest.name, manifest.version, sha256),
        detector=opened["detector"],
        characteriser=_Absent(f"{manifest.name} {manifest.version}"),
        execution_provider=opened["detector"].execution_provider,
        notices=tuple({notice.message: notice for n in opened.values() for notice in n.notices}.values()),
        precision=chosen,
    )
    if manifest.characteriser is None:
        return loaded
    verdict = _opened_verdict(folder, manifest.characteriser.verdict, chosen["characteriser"], session)
    return replace(loaded, characteriser=opened["characteriser"], verdict=verdict)


@dataclass(frozen=True)
class _Absent:
    """In the place of a characteriser that the model does not have."""

    model: str

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:  # noqa: ARG002 - as every network
        raise no_characteriser(self.model)


def _opened_characteriser(
    folder: Path, entry: AnyCharacteriser, precision: str, session: SessionOptions
) -> OpenNetwork | ForeignCharacteriser:
    if not isinstance(entry, CharacteriserEntry):
        return behind_manifest(open_unchecked(folder, entry, precision, session), entry)
    characteriser = open_entry(folder, entry, precision, session, CHARACTERISER)
    _expect_attributes(entry, characteriser)
    return characteriser


def _opened_verdict(
    folder: Path, entry: NetworkFile | None, precision: str, session: SessionOptions
) -> OpenNetwork | None:
    """None where the model has none in the characteriser's own arithmetic: then that judges, mask and all."""
    if entry is None or (precision != FP32 and precision not in entry.variants):
        return None
    return open_entry(folder, entry, precision, session, VERDICT)


def _with_fp32_instead(folder: Path, session: SessionOptions, precision: str) -> LoadedModel:
    """A variant for GPUs that runs on the CPU is slower than fp32 and no better."""
    message = f"The precision asked for was {precision}, which is for GPUs; no GPU can be used, so fp32 runs."
    plain = load_model(folder, session)
    return replace(plain, notices=(*plain.notices, Notice("precision_fallback", message, {"precision": precision})))


def warm_up(model: LoadedModel) -> None:
    """Run both networks once on small arrays, so that the first caller does not pay for the device's preparations.

    Raises
    ------
    ModelError
        ``network_contract`` when an output has another shape than the manifest's kind promises.
    """
    _warm_up_detector(model)
    entry = model.manifest.characteriser
    if entry is None:
        return
    slices = len(entry.crop.slice_offsets_mm)
    crops = np.zeros((2, slices, entry.crop.size_px, entry.crop.size_px), np.float32)
    if model.verdict is not None:
        model.verdict({"crops": crops})
    said = model.characteriser({"crops": crops})
    for name in ("nodule_probability", "malignancy_probability"):
        if name in said or isinstance(entry, CharacteriserEntry):
            _expect_shape("characteriser", name, said[name].shape, (2,))
    if not isinstance(entry, CharacteriserEntry):
        return
    _expect_shape("characteriser", "attributes", said["attributes"].shape, (2, len(entry.attribute_names)))
    _expect_shape("characteriser", "mask_probability", said["mask_probability"].shape, crops.shape)


def _warm_up_detector(model: LoadedModel) -> None:
    entry = model.manifest.detector
    if isinstance(entry, RetinaNetEntry):
        shape = tuple(m * -(-32 // m) for m in entry.multiple_zyx)
        decode_heads(model.detector({"volume": np.zeros((1, 1, *shape), np.float32)}), entry, shape)
        return
    size = max(32, model.manifest.preprocessing.shape_multiple)
    found = model.detector({"volume": np.zeros((1, 1, size, size, size), np.float32)})
    if isinstance(entry, HeatMapEntry):
        decode_heat_maps(found, entry)
    else:
        _expect_shape("detector", "boxes", found["boxes"].shape, (1, found["scores"].shape[1], 6))


def _expect_attributes(entry: CharacteriserEntry, characteriser: OpenNetwork) -> None:
    count = characteriser.outputs["attributes"][1]
    named = len(entry.attribute_names)
    if isinstance(count, int) and count != named:
        raise ModelError(
            f"{entry.file} gives {count} attributes, the manifest names {named}.",
            code="network_contract",
            values={"file": entry.file, "found": count, "expected": named},
        )


def _expect_shape(network: str, output: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != tuple(expected):
        raise ModelError(
            f"Output {output} of the {network} has shape {tuple(found)}, expected {tuple(expected)}.",
            code="network_contract",
            values={"output": output, "found": list(found), "expected": list(expected)},
        )


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Semantic order: 0.10.0 after 0.9.0, and a release after its own pre-releases."""
    core, _, suffix = version.partition("-")
    numbers = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in core.split("+")[0].split(".")]
    return (*numbers, (0, 0, suffix) if suffix else (1, 0, ""))
