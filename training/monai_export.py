"""A bundle's network as an ONNX file that answers as torch does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from app.inference.manifest import Parity
from training.monai_config import BundleError

PARITY_TOLERANCE = 1e-3


def export_network(network: nn.Module, path: Path, outputs: Sequence[str], multiple_zyx: tuple[int, int, int]) -> None:
    """Write ``network`` with the input ``volume`` (1, 1, z, y, x), any multiple of ``multiple_zyx``."""
    example = torch.zeros(1, 1, *(4 * n for n in multiple_zyx))
    dims = {axis: n * torch.export.Dim(name) for axis, n, name in zip((2, 3, 4), multiple_zyx, "zyx", strict=True)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what it made is checked by parity
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=True,
            input_names=["volume"],
            output_names=list(outputs),
            dynamic_shapes=(dims,),
            external_data=False,
            verbose=False,
        )


def parity(network: nn.Module, path: Path, multiple_zyx: tuple[int, int, int], *, seed: int = 0) -> Parity:
    """Largest difference between torch and ONNX Runtime, at a size other than the exported one.

    Outputs are compared as they are. Where rows are sorted by a score (``boxes``), those are compared whose scores
    tell them apart.

    Raises
    ------
    BundleError
        If it is above `PARITY_TOLERANCE`.
    """
    shape = [n * count for n, count in zip(multiple_zyx, (5, 4, 3), strict=True)]
    noise = torch.rand(1, 1, *(n + 6 for n in shape), generator=torch.Generator().manual_seed(seed))
    volume = nn.functional.avg_pool3d(noise, 7, 1)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"volume": volume.numpy()}), strict=True))
    with torch.no_grad():
        expected = {n: value.numpy() for n, value in zip(names, _tuple(network(volume)), strict=True)}
    if "boxes" in expected:
        distinct = int(np.argmax(np.append(-np.diff(expected["scores"][0]) < 1e-6, [True])))
        found["boxes"], expected["boxes"] = found["boxes"][:, :distinct], expected["boxes"][:, :distinct]
    difference = max(float(np.abs(found[n] - expected[n]).max(initial=0.0)) for n in names)
    if not difference <= PARITY_TOLERANCE:
        raise BundleError(
            f"{path.name}: ONNX Runtime differs from torch by {difference:.2g}, {_differences(found, expected)}"
        )
    opset = next(entry.version for entry in onnx.load(path, load_external_data=False).opset_import if not entry.domain)
    return Parity(
        max_abs_difference=difference,
        opset=opset,
        torch_version=torch.__version__,
        onnxruntime_version=onnxruntime.__version__,
    )


def _tuple(said: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (said,) if isinstance(said, Tensor) else said


def _differences(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.abs(found[name] - expected[name]).max(initial=0.0)) for name in found}
