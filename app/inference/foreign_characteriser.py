"""A characteriser that was not made here, behind the interface of one that was; the manifest says how.

It takes ``crops`` and gives those of ``nodule_probability`` and ``malignancy_probability`` that it has. What it does
not have is absent, and whoever asks copes: no number stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.inference.manifest import AxialSliceEntry, CropBlockEntry
from app.inference.network import Array
from app.inference.network_heads import Head, probabilities
from app.inference.opening import OpenNetwork


@dataclass(frozen=True)
class ForeignCharacteriser:
    """Crops (n, slices, rows, columns) in network units 0..1 to probabilities (n,). Make with `behind_manifest`."""

    network: OpenNetwork
    entry: AxialSliceEntry | CropBlockEntry
    heads: Mapping[str, Head]
    """By the name of what they say."""

    @property
    def execution_provider(self) -> str:
        """Of the network."""
        return self.network.execution_provider

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Of the network."""
        return self.network.notices

    @property
    def inputs(self) -> dict[str, tuple[int | str | None, ...]]:
        """Shape by input name, as callers see it."""
        size = self.entry.crop.size_px
        return {"crops": ("n", len(self.entry.crop.slice_offsets_mm), size, size)}

    @property
    def outputs(self) -> dict[str, tuple[int | str | None, ...]]:
        """Shape by output name, as callers see it."""
        return dict.fromkeys(self.heads, ("n",))

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Judge crops.

        Raises
        ------
        ModelError
            As the network and `app.inference.network_heads.probabilities`.
        """
        crops = inputs["crops"]
        arranged = self.entry.input.arranged(crops)
        fixed = self.network.inputs[self.entry.input.name][0]
        parts = [arranged] if not isinstance(fixed, int) else _batches(arranged, fixed)
        said = [self.network({self.entry.input.name: part}) for part in parts]
        return {
            name: np.concatenate(
                [probabilities(head, answer[head.output], len(part)) for answer, part in zip(said, parts, strict=True)]
            )[: len(crops)]
            for name, head in self.heads.items()
        }


def behind_manifest(network: OpenNetwork, entry: AxialSliceEntry | CropBlockEntry) -> ForeignCharacteriser:
    """Check a network against its entry and put it behind the common interface.

    Raises
    ------
    ModelError
        ``network_contract`` when it lacks the input or an output that the manifest names, or when the input has other
        axes than the crop in the stated layout.
    """
    heads = {"nodule_probability": entry.nodule, "malignancy_probability": entry.malignancy}
    present = {name: head for name, head in heads.items() if head is not None}
    inputs, outputs = network.inputs, network.outputs
    lacking = [head.output for head in present.values() if head.output not in outputs]
    if set(inputs) != {entry.input.name} or lacking:
        raise _contract(
            f"{entry.file} has the inputs {sorted(inputs)} and the outputs {sorted(outputs)}; the manifest promises "
            f"the input {entry.input.name} and the outputs {sorted({head.output for head in present.values()})}.",
            entry.file,
            inputs=sorted(inputs),
            outputs=sorted(outputs),
        )
    found = inputs[entry.input.name]
    promised = entry.input.shape(len(entry.crop.slice_offsets_mm), entry.crop.size_px)
    pairs = zip(found[1:], promised[1:], strict=False)
    if len(found) != len(promised) or any(isinstance(axis, int) and axis != want for axis, want in pairs):
        raise _contract(
            f"{entry.file} takes {list(found)}; by the manifest's crop and layout {entry.input.layout} it would be "
            f"given {list(promised)}.",
            entry.file,
            found=list(found),
            expected=list(promised),
        )
    return ForeignCharacteriser(network, entry, present)


def _batches(arranged: NDArray[np.float32], size: int) -> list[NDArray[np.float32]]:
    """Runs of the one length that a graph without a free first axis takes; the last is filled up with its last crop."""
    missing = -len(arranged) % size
    filled = np.concatenate([arranged, np.repeat(arranged[-1:], missing, axis=0)])
    return [filled[start : start + size] for start in range(0, len(filled), size)]


def _contract(message: str, file: str, **values: object) -> ModelError:
    return ModelError(message, code="network_contract", values={"file": file, **values})
