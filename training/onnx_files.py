"""A network as an ONNX file, and the proof that it answers as torch does."""

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

PARITY_TOLERANCE = 1e-3


class ParityError(RuntimeError):
    """ONNX Runtime answers otherwise than torch; the message says by how much, output by output."""


def write_onnx(
    network: nn.Module, path: Path, example: Tensor, name: str, outputs: Sequence[str], sizes: Mapping[int, object]
) -> None:
    """Write ``network`` with the one input ``name``; ``sizes`` are the axes of ``example`` that may differ."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what it made is checked by parity
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=True,
            input_names=[name],
            output_names=list(outputs),
            dynamic_shapes=(dict(sizes),),
            external_data=False,
            verbose=False,
        )


def parity(network: nn.Module, path: Path, name: str, value: Tensor) -> Parity:
    """Largest difference over all outputs between torch and the file.

    Rows that are sorted by a score (``boxes`` by ``scores``) are compared as far as their scores tell them apart.

    Parameters
    ----------
    network, path
        What was exported, and where to.
    name, value
        The input, of another size than the one that was exported with.

    Raises
    ------
    ParityError
        If it is above `PARITY_TOLERANCE`, or no number.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {name: value.numpy()}), strict=True))
    with torch.no_grad():
        said = network(value)
    tensors = (said,) if isinstance(said, Tensor) else said
    expected = {output: tensor.numpy() for output, tensor in zip(names, tensors, strict=True)}
    if "boxes" in expected:
        distinct = int(np.argmax(np.append(-np.diff(expected["scores"][0]) < 1e-6, [True])))
        found["boxes"], expected["boxes"] = found["boxes"][:, :distinct], expected["boxes"][:, :distinct]
    differences = {output: float(np.abs(found[output] - expected[output]).max(initial=0.0)) for output in names}
    if not all(difference <= PARITY_TOLERANCE for difference in differences.values()):
        raise ParityError(f"{path.name}: ONNX Runtime differs from torch by {differences}")
    opset = next(entry.version for entry in onnx.load(path, load_external_data=False).opset_import if not entry.domain)
    return Parity(
        max_abs_difference=max(differences.values(), default=0.0),
        opset=opset,
        torch_version=torch.__version__,
        onnxruntime_version=onnxruntime.__version__,
    )
