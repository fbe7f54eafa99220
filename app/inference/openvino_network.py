"""A network in OpenVINO's CPU runtime; the only import of openvino in the house, an optional package (Apache-2.0).

OpenVINO computes as the processor can: without bfloat16 instructions it would run in float32 and say nothing. Here the
compiled network is asked what it really does, as in `app.inference.network`.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.inference.network import Array, SessionOptions, open_network

PROVIDER = "OpenVINO"


@dataclass(frozen=True)
class OpenVinoNetwork:
    """A network compiled for the CPU. Open with `open_openvino`; calls from several threads take turns."""

    compiled: Any
    inputs: dict[str, tuple[int | str | None, ...]]
    """Shape by input name; None is a dynamic size."""
    outputs: dict[str, tuple[int | str | None, ...]]
    execution_provider: str = PROVIDER
    notices: tuple[Notice, ...] = ()
    """Why it does not compute as it was asked to."""
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Raises
        ------
        ModelError
            ``inference_failed`` when the runtime refuses the arrays or runs out of memory.
        """
        try:
            _refuse_other_types(inputs)  # OpenVINO would take their bytes for float32
            with self.turn:
                answer = self.compiled.create_infer_request().infer(dict(inputs), share_inputs=True)
                # The arrays of an answer are views of memory that the next run overwrites.
                return {name: np.array(answer[name]) for name in self.outputs}
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            shapes = {name: list(np.shape(value)) for name, value in inputs.items()}
            reason = (str(error).splitlines() or [""])[-1][:200]
            raise ModelError(
                f"The network could not be run on {PROVIDER} with inputs {shapes}: {reason}",
                code="inference_failed",
                values={"execution_provider": PROVIDER, "input_shapes": shapes},
            ) from error


def _refuse_other_types(inputs: Mapping[str, Array]) -> None:
    wrong = [name for name, value in inputs.items() if value.dtype != np.float32]
    if wrong:
        raise TypeError(f"float32 arrays are needed for {', '.join(wrong)}")


def has_openvino() -> bool:
    """Whether the package is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def open_openvino(model: bytes, options: SessionOptions, *, bfloat16: bool, name: str = "network") -> OpenVinoNetwork:
    """Compile a serialised ONNX model for the CPU.

    Parameters
    ----------
    model
        The content of one self-contained ``.onnx`` file.
    options
        Threads; the rest is ONNX Runtime's.
    bfloat16
        Compute in bfloat16 instead of float32 where the processor can; inputs and outputs are float32.
    name
        How errors call the model, e.g. its file name.

    Raises
    ------
    ModelError
        ``runtime_missing`` without the package; ``network_invalid`` when it is no valid model.
    """
    if not has_openvino():
        raise ModelError(
            f"{name} is to run in OpenVINO, which is not installed: pip install openvino.",
            code="runtime_missing",
            values={"file": name},
        )
    # OpenVINO would read weights from files beside the working directory; ONNX Runtime, as it is opened here, refuses.
    open_network(model, SessionOptions(device="cpu", threads=1, graph_optimisation="off"), name=name)
    openvino = importlib.import_module("openvino")
    wanted = "bf16" if bfloat16 else "f32"
    settings = {
        "INFERENCE_PRECISION_HINT": wanted,
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # other work shares the cores
    }
    try:
        reader = openvino.Core()
        compiled = reader.compile_model(reader.read_model(model), "CPU", settings)
    except RuntimeError as error:
        raise ModelError(
            f"{name} is not an ONNX model that OpenVINO can open.", code="network_invalid", values={"file": name}
        ) from error
    return OpenVinoNetwork(
        compiled=compiled,
        inputs={port.get_any_name(): _shape(port) for port in compiled.inputs},
        outputs={port.get_any_name(): _shape(port) for port in compiled.outputs},
        notices=_fallback_notices(compiled, wanted),
    )


def _shape(port: Any) -> tuple[int | str | None, ...]:  # noqa: ANN401
    sizes = port.get_partial_shape()
    return tuple(size.get_length() if size.is_static else None for size in sizes)


def _fallback_notices(compiled: Any, wanted: str) -> tuple[Notice, ...]:  # noqa: ANN401
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found == wanted:
        return ()
    message = f"The arithmetic asked for was {wanted}; on this processor OpenVINO computes in {found}."
    return (Notice("precision_fallback", message, {"asked": wanted, "found": found}),)
