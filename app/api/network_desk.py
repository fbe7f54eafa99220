"""The networks of the models in force or in the store, by the names that the Open Inference Protocol asks for.

Each model gives two: ``<model>-detector`` and ``<model>-characteriser``, under the model's version. They take network
units, not HU: what the pipeline does before and after them is the caller's own affair.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from app.api.errors import AnalysisTimeout, InvalidInference, NotFound
from app.api.open_inference import DATATYPE, Array, Inference
from app.api.service import Service
from app.api.waiting_line import ClientHungUp
from app.imaging.errors import ModelError, OptionError
from app.inference.characterisation import BATCH
from app.inference.detection import max_voxels_within
from app.inference.model_registry import KnownModel
from app.inference.model_store import LoadedModel
from app.inference.network import Network
from app.inference.precision import ROLES

MOST_CROPS = 1024
Shape = tuple[int | str | None, ...]


@runtime_checkable
class DescribedNetwork(Protocol):
    """A network that tells its inputs and outputs."""

    @property
    def inputs(self) -> dict[str, Shape]:
        """Shape by name; names and None are free."""

    @property
    def outputs(self) -> dict[str, Shape]:
        """Likewise."""

    def __call__(self, inputs: Any) -> dict[str, Any]:  # noqa: ANN401 - as `Network`
        """Run once."""


@dataclass(frozen=True)
class NamedNetwork:
    """One network of one model."""

    name: str
    role: str
    model: KnownModel


def find_network(service: Service, name: str, version: str | None) -> NamedNetwork:
    """The network of that name. Blocks.

    Raises
    ------
    NotFound
        ``unknown_network``, with the names there are.
    ModelError
        The model is there and cannot be used.
    """
    base, _, role = name.rpartition("-")
    if role in ROLES:
        with suppress(OptionError):
            return NamedNetwork(name, role, service.model(f"{base}:{version}" if version else base))
    usable, _ = service.models.registry.listed()
    available = sorted({f"{model.identity.name}-{role}" for model in usable for role in ROLES})
    raise NotFound(
        f"No such network or version; there are {', '.join(available)}.",
        code="unknown_network",
        values={"available": available},
    )


def versions_of(service: Service, network: NamedNetwork) -> list[str]:
    """Versions of its model in the store. Blocks."""
    usable, _ = service.models.registry.listed()
    return [model.identity.version for model in usable if model.identity.name == network.model.identity.name]


def description(service: Service, network: NamedNetwork) -> dict[str, Any]:
    """The protocol's metadata; loads the model where it is not in memory. Blocks."""
    with service.models.registry.lease(network.model) as loaded:
        opened = _opened(loaded, network.role)
        return {
            "name": network.name,
            "versions": versions_of(service, network),
            "platform": "onnxruntime_onnx",
            "inputs": _described(opened.inputs),
            "outputs": _described(opened.outputs),
        }


def run_network(
    service: Service, network: NamedNetwork, asked: Inference, abandoned: threading.Event
) -> list[tuple[str, Array]]:
    """The outputs that were asked for, in that order. Blocks.

    Raises
    ------
    InvalidInference
        Inputs or outputs are not the network's, or larger than it may take here.
    ModelError
        It cannot be run.
    ClientHungUp, AnalysisTimeout
        Between two batches of crops.
    """
    limit_s = service.settings.analysis_timeout_s
    deadline = time.monotonic() + limit_s
    with service.models.registry.lease(network.model) as loaded:
        opened = _opened(loaded, network.role)
        _expect_names(asked, opened)
        for name, shape in opened.inputs.items():
            _expect_shape(name, asked.inputs[name].shape, shape)
        if network.role == "detector":
            _expect_volume(asked, loaded, service)
            said = [opened(asked.inputs)]
        else:
            said = []
            for part in _batches(asked):
                if abandoned.is_set():
                    raise ClientHungUp
                if time.monotonic() > deadline:
                    raise AnalysisTimeout(f"The request took more than {limit_s:g} s.", values={"limit_s": limit_s})
                said.append(opened(part))
        wanted = asked.outputs or tuple(opened.outputs)
    joined = [(name, np.concatenate([answer[name] for answer in said]).astype(np.float32)) for name in wanted]
    if faulty := [name for name, values in joined if not np.isfinite(values).all()]:
        raise ModelError(
            f"The outputs {', '.join(faulty)} hold values that are no numbers.",
            code="network_output_invalid",
            values={"network": network.role, "outputs": faulty},
        )
    return joined


def _opened(loaded: LoadedModel, role: str) -> DescribedNetwork:
    network: Network = loaded.detector if role == "detector" else loaded.characteriser
    if not isinstance(network, DescribedNetwork):
        raise NotFound("This network tells no inputs and outputs, so it is not served.", code="unknown_network")
    return network


def _described(shapes: dict[str, Shape]) -> list[dict[str, Any]]:
    """As the protocol has them: -1 is free."""
    return [
        {"name": name, "datatype": DATATYPE, "shape": [n if isinstance(n, int) else -1 for n in shape]}
        for name, shape in shapes.items()
    ]


def _expect_names(asked: Inference, opened: DescribedNetwork) -> None:
    if set(asked.inputs) != set(opened.inputs):
        raise InvalidInference(
            f"The network takes {', '.join(opened.inputs)}; other inputs were sent.",
            code="wrong_inputs",
            values={"expected": list(opened.inputs)},
        )
    if not set(asked.outputs) <= set(opened.outputs):
        raise InvalidInference(
            f"The network gives {', '.join(opened.outputs)}; another output was asked for.",
            code="wrong_outputs",
            values={"available": list(opened.outputs)},
        )


def _expect_shape(name: str, found: tuple[int, ...], expected: Shape) -> None:
    fits = len(found) == len(expected) and all(
        n > 0 and (not isinstance(want, int) or n == want) for n, want in zip(found, expected, strict=True)
    )
    if not fits:
        wanted = [n if isinstance(n, int) else -1 for n in expected]
        raise InvalidInference(
            f"Input {name} has shape {list(found)}; the network takes {wanted}, where -1 is any number from 1.",
            code="wrong_shape",
            values={"found": list(found), "expected": wanted},
        )


def _expect_volume(asked: Inference, loaded: LoadedModel, service: Service) -> None:
    (volume,) = asked.inputs.values()
    multiple = loaded.manifest.preprocessing.shape_multiple
    most = max_voxels_within(loaded, service.settings.detector_memory_mib)
    if volume.size > most or any(n % multiple for n in volume.shape[2:]):
        raise InvalidInference(
            f"A volume of shape {list(volume.shape)}: each axis has to be a multiple of {multiple}, and there may be "
            f"{most} voxels at once. Cut it into tiles.",
            code="wrong_shape",
            values={"found": list(volume.shape), "shape_multiple": multiple, "max_voxels": most},
        )


def _batches(asked: Inference) -> list[dict[str, Array]]:
    ((name, crops),) = asked.inputs.items()
    if len(crops) > MOST_CROPS:
        raise InvalidInference(
            f"{len(crops)} crops; at most {MOST_CROPS} are judged at once.",
            code="too_many_crops",
            values={"found": len(crops), "limit": MOST_CROPS},
        )
    return [{name: crops[start : start + BATCH]} for start in range(0, len(crops), BATCH)]
