"""From one entry of a manifest to a network that runs: the right file, verified, in the right runtime."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from app.imaging.errors import ModelError
from app.inference.detector_kinds import AnyDetector, HeatMapEntry, RetinaNetEntry
from app.inference.network import GPU_PROVIDERS, OnnxNetwork, SessionOptions, open_network
from app.inference.network_files import NetworkFile, NetworkVariant
from app.inference.openvino_network import OpenVinoNetwork, open_openvino

OpenNetwork = OnnxNetwork | OpenVinoNetwork


class Runs(Protocol):
    """What tells where it runs."""

    @property
    def execution_provider(self) -> str:
        """The provider that is really in use."""


@dataclass(frozen=True)
class Contract:
    """Number of axes by name; what the axes mean is written in `app.inference.manifest`."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    optional: Mapping[str, int] = field(default_factory=dict)
    """Outputs that may be left out."""

    def holds(self, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> bool:
        """Whether a network with these inputs and outputs keeps the contract."""
        needed = {name: axes for name, axes in outputs.items() if name not in self.optional}
        extra = {name: axes for name, axes in outputs.items() if name in self.optional}
        return inputs == self.inputs and needed == self.outputs and extra.items() <= self.optional.items()


BOXES = Contract({"volume": 5}, {"boxes": 3, "scores": 2})
HEAT_MAP = Contract({"volume": 5}, {"heat": 5, "size": 5}, optional={"offset": 5})
CHARACTERISER = Contract(
    {"crops": 4},
    {"nodule_probability": 1, "malignancy_probability": 1, "attributes": 2, "mask_probability": 4},
)
VERDICT = Contract({"crops": 4}, {"nodule_probability": 1, "malignancy_probability": 1, "attributes": 2})


def detector_contract(entry: AnyDetector) -> Contract:
    """What a detector of that kind must have."""
    if isinstance(entry, HeatMapEntry):
        return HEAT_MAP
    if isinstance(entry, RetinaNetEntry):
        numbers = range(len(entry.levels))
        return Contract({"volume": 5}, {f"{name}_{number}": 5 for name in ("logits", "deltas") for number in numbers})
    return BOXES


def read_verified(folder: Path, entry: NetworkFile | NetworkVariant) -> bytes:
    """The content of a file of the model, once it is known to be the one that the manifest means.

    Raises
    ------
    ModelError
        ``file_missing``, ``file_not_regular`` or ``hash_mismatch``.
    """
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


def open_entry(
    folder: Path, entry: NetworkFile, precision: str, session: SessionOptions, contract: Contract
) -> OpenNetwork:
    """Open an entry's variant of that name, or the entry itself where it has none.

    Raises
    ------
    ModelError
        As `read_verified`, `open_network` and `open_openvino`; ``network_contract`` when inputs or outputs are not
        what the manifest's kind promises.
    """
    network = open_unchecked(folder, entry, precision, session)
    file = entry.variants[precision].file if precision in entry.variants else entry.file
    inputs = {name: len(shape) for name, shape in network.inputs.items()}
    outputs = {name: len(shape) for name, shape in network.outputs.items()}
    if not contract.holds(inputs, outputs):
        raise ModelError(
            f"{file} has inputs {inputs} and outputs {outputs} (name: number of axes); "
            f"the manifest's kind promises {contract.inputs} and {contract.outputs}.",
            code="network_contract",
            values={"file": file, "inputs": inputs, "outputs": outputs},
        )
    return network


def open_unchecked(folder: Path, entry: NetworkFile, precision: str, session: SessionOptions) -> OpenNetwork:
    """`open_entry` without a look at inputs and outputs: for kinds whose manifest names them."""
    variant = entry.variants.get(precision)
    file = entry.file if variant is None else variant.file
    return _opened(read_verified(folder, variant or entry), file, variant, session)


def stranded(entry: NetworkFile, precision: str, network: Runs) -> bool:
    """Whether a variant for GPUs ended up on another device."""
    variant = entry.variants.get(precision)
    return variant is not None and variant.device == "gpu" and network.execution_provider not in GPU_PROVIDERS


def _opened(content: bytes, file: str, variant: NetworkVariant | None, session: SessionOptions) -> OpenNetwork:
    if variant is None or variant.device == "gpu":
        return open_network(content, session, name=file)
    if variant.runtime == "openvino":
        return open_openvino(content, session, bfloat16=variant.arithmetic == "bfloat16", name=file)
    return open_network(content, replace(session, device="cpu"), name=file)
