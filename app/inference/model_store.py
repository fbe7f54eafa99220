"""Model folders ``<store>/<name>/<version>/``: find, verify by sha256, load, warm up.

A folder is trusted for nothing: every file is a regular file inside it, hashed, and loaded from the very bytes that
were hashed. A model that passes `load_model` has the inputs and outputs its manifest promises and was trained on
arrays that this installation's preprocessing reproduces.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.inference.findings import ModelIdentity
from app.inference.manifest import ModelManifest, NetworkFile, load_manifest, load_manifest_and_sha256
from app.inference.network import Network, OnnxNetwork, SessionOptions, open_network
from app.phantom.reference import reference_digest

DETECTOR_INPUTS, DETECTOR_OUTPUTS = {"volume": 5}, {"boxes": 3, "scores": 2}
CHARACTERISER_INPUTS = {"crops": 4}
CHARACTERISER_OUTPUTS = {
    "nodule_probability": 1,
    "malignancy_probability": 1,
    "attributes": 2,
    "mask_probability": 4,
}
"""Number of axes by name; what the axes mean is written in `app.inference.manifest`."""


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
    execution_provider: str
    notices: tuple[Notice, ...] = ()
    """What whoever runs it should know, e.g. that it fell back to the CPU."""


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
    models = list_models(store)
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
    for entry in (manifest.detector, manifest.characteriser):
        _read_verified(folder, entry)
    return manifest


def load_model(folder: Path, session: SessionOptions) -> LoadedModel:
    """Verify a model folder and open its networks.

    Parameters
    ----------
    folder
        ``<store>/<name>/<version>``.
    session
        Device, threads, memory.

    Raises
    ------
    ModelError
        As `verify_model` and `app.inference.network.open_network`; ``network_contract`` when inputs or outputs
        are not what the manifest's kind promises; ``preprocessing_mismatch`` when the preprocessing of this
        installation gives other arrays than the networks were trained on.
    """
    manifest, sha256 = load_manifest_and_sha256(folder)
    found = reference_digest(manifest.preprocessing, manifest.characteriser.crop)
    if found != manifest.preprocessing_digest:
        raise ModelError(
            "The preprocessing of this installation does not reproduce the arrays that the networks were trained "
            f"on: the reference digest is {found}, the manifest says {manifest.preprocessing_digest}. Install the "
            "versions of the lock file, or export the model again.",
            code="preprocessing_mismatch",
            values={"expected": manifest.preprocessing_digest, "found": found},
        )
    detector = _open(folder, manifest.detector, session, DETECTOR_INPUTS, DETECTOR_OUTPUTS)
    characteriser = _open(folder, manifest.characteriser, session, CHARACTERISER_INPUTS, CHARACTERISER_OUTPUTS)
    _expect_attributes(manifest, characteriser)
    return LoadedModel(
        manifest=manifest,
        identity=ModelIdentity(manifest.name, manifest.version, sha256),
        detector=detector,
        characteriser=characteriser,
        execution_provider=detector.execution_provider,
        notices=detector.notices or characteriser.notices,
    )


def warm_up(model: LoadedModel) -> None:
    """Run both networks once on small arrays, so that the first caller does not pay for the device's preparations.

    Raises
    ------
    ModelError
        ``network_contract`` when an output has another shape than the manifest's kind promises.
    """
    entry = model.manifest.characteriser
    size = max(32, model.manifest.preprocessing.shape_multiple)
    found = model.detector({"volume": np.zeros((1, 1, size, size, size), np.float32)})
    _expect_shape("detector", "boxes", found["boxes"].shape, (1, found["scores"].shape[1], 6))
    slices = len(entry.crop.slice_offsets_mm)
    crops = np.zeros((2, slices, entry.crop.size_px, entry.crop.size_px), np.float32)
    said = model.characteriser({"crops": crops})
    _expect_shape("characteriser", "nodule_probability", said["nodule_probability"].shape, (2,))
    _expect_shape("characteriser", "malignancy_probability", said["malignancy_probability"].shape, (2,))
    _expect_shape("characteriser", "attributes", said["attributes"].shape, (2, len(entry.attribute_names)))
    _expect_shape("characteriser", "mask_probability", said["mask_probability"].shape, crops.shape)


def _read_verified(folder: Path, entry: NetworkFile) -> bytes:
    """The content of a file of the model, once it is known to be the one that the manifest means."""
    path = folder / entry.file
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise ModelError(
            f"{path} is named by the manifest but missing.", code="file_missing", values={"file": str(path)}
        ) from error
    if not stat.S_ISREG(mode):
        raise ModelError(
            f"{path} must be a regular file inside the model folder, not a link or a device.",
            code="file_not_regular",
            values={"file": str(path)},
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise ModelError(
            f"{path} is not the file that the manifest means: sha256 expected {entry.sha256}, found {found}. "
            "Fetch the model folder again.",
            code="hash_mismatch",
            values={"file": str(path), "expected": entry.sha256, "found": found},
        )
    return content


def _open(
    folder: Path, entry: NetworkFile, session: SessionOptions, inputs: Mapping[str, int], outputs: Mapping[str, int]
) -> OnnxNetwork:
    network = open_network(_read_verified(folder, entry), session, name=entry.file)
    found_inputs = {name: len(shape) for name, shape in network.inputs.items()}
    found_outputs = {name: len(shape) for name, shape in network.outputs.items()}
    if found_inputs != dict(inputs) or found_outputs != dict(outputs):
        raise ModelError(
            f"{entry.file} has inputs {found_inputs} and outputs {found_outputs} (name: number of axes); "
            f"the manifest's kind promises {dict(inputs)} and {dict(outputs)}.",
            code="network_contract",
            values={"file": entry.file, "inputs": found_inputs, "outputs": found_outputs},
        )
    return network


def _expect_attributes(manifest: ModelManifest, characteriser: OnnxNetwork) -> None:
    count = characteriser.outputs["attributes"][1]
    named = len(manifest.characteriser.attribute_names)
    if isinstance(count, int) and count != named:
        raise ModelError(
            f"{manifest.characteriser.file} gives {count} attributes, the manifest names {named}.",
            code="network_contract",
            values={"file": manifest.characteriser.file, "found": count, "expected": named},
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
