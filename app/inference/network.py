"""A network as a function of arrays; the only import of onnxruntime in the house.

ONNX Runtime falls back to the CPU without an error when a GPU cannot be used. Here the session is asked which
provider it really got, the answer travels with the network, and ``require_gpu`` turns it into a refusal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError

Array = NDArray[Any]
Device = Literal["auto", "cpu", "cuda", "tensorrt"]
CudnnSearch = Literal["heuristic", "exhaustive", "default"]
GraphOptimisation = Literal["off", "basic", "extended", "all"]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
GPU_PROVIDERS = (TENSORRT, CUDA)

_ELEMENT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Network(Protocol):
    """Named arrays in, named arrays out."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once."""
        ...


@dataclass(frozen=True)
class SessionOptions:
    """How networks are run.

    Parameters
    ----------
    device
        ``auto`` takes CUDA when a GPU is there. ``tensorrt`` tries TensorRT, then CUDA. Without ``require_gpu``
        all but ``cpu`` fall back to the CPU and say so (`OnnxNetwork.notices`).
    threads
        Threads inside one operator on the CPU; 0 takes one for each core.
    require_gpu
        Refuse to open a network that would not run on a GPU.
    reuse_memory_pattern
        Plan all buffers of a shape at once. Off: every CT has another shape, and the plan costs 15-37 % of memory.
    memory_arena
        Keep freed buffers. Off saves memory between scans and costs 20-55 % of time.
    graph_optimisation
        How far ONNX Runtime rewrites the graph; below ``extended`` an int8 network runs as float32.
    cudnn_search
        How cuDNN picks its convolutions. ``exhaustive`` tries all of them, for seconds, at every new shape.
    gpu_memory_limit_bytes
        Upper bound of the CUDA arena; None leaves it to the device.
    tensorrt_cache
        Folder where TensorRT keeps its built engines; without one every start builds them anew.
    """

    device: Device = "auto"
    threads: int = 0
    require_gpu: bool = False
    reuse_memory_pattern: bool = False
    memory_arena: bool = True
    graph_optimisation: GraphOptimisation = "all"
    cudnn_search: CudnnSearch = "heuristic"
    gpu_memory_limit_bytes: int | None = None
    tensorrt_cache: Path | None = None


@dataclass(frozen=True)
class OnnxNetwork:
    """A network that runs in an ONNX Runtime session. Open with `open_network`; calls are safe from many threads."""

    session: Any
    inputs: dict[str, tuple[int | str | None, ...]]
    """Shape by input name; named or absent sizes are dynamic."""
    outputs: dict[str, tuple[int | str | None, ...]]
    execution_provider: str
    """The provider that the session reports, not the one that was asked for."""
    notices: tuple[Notice, ...] = ()
    """Why it does not run where it was asked to."""
    element_types: Mapping[str, str] = field(default_factory=dict)
    """By input and output name as ONNX Runtime calls them, e.g. ``tensor(float)``."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once.

        Raises
        ------
        ModelError
            ``inference_failed`` when the runtime refuses the arrays or runs out of memory.
        """
        names = list(self.outputs)
        run = run_bound if self.execution_provider in GPU_PROVIDERS else run_plain
        try:
            values = run(self.session, names, inputs)
        except _runtime_errors() as error:
            shapes = {name: list(np.shape(value)) for name, value in inputs.items()}
            raise ModelError(
                f"The network could not be run on {self.execution_provider} with inputs {shapes}: {_reason(error)}",
                code="inference_failed",
                values={"execution_provider": self.execution_provider, "input_shapes": shapes},
            ) from error
        return dict(zip(names, values, strict=True))


def run_plain(session: Any, names: list[str], inputs: Mapping[str, Array]) -> list[Array]:  # noqa: ANN401
    """One run with arrays in the machine's own memory."""
    return list(session.run(names, dict(inputs)))


def run_bound(session: Any, names: list[str], inputs: Mapping[str, Array]) -> list[Array]:  # noqa: ANN401
    """One run with inputs put on the device first and outputs fetched last: one copy each way, none in between."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(value))
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    return list(binding.copy_outputs_to_cpu())


def open_network(model: bytes, options: SessionOptions, *, name: str = "network") -> OnnxNetwork:
    """Open a serialised ONNX model.

    Bytes, not a path: what was hashed is what is loaded, and weights outside the file are refused.

    Parameters
    ----------
    model
        The content of one self-contained ``.onnx`` file.
    options
        Device, threads, memory.
    name
        How errors call the model, e.g. its file name.

    Raises
    ------
    ModelError
        ``network_invalid`` when it is no valid model or keeps data in other files; ``gpu_required`` when
        ``options.require_gpu`` and it would run on the CPU.
    """
    wanted = _providers(options)
    session = _open_session(model, options, wanted, name)
    provider = str(session.get_providers()[0])
    if options.require_gpu and provider not in GPU_PROVIDERS:
        raise ModelError(
            f"A GPU is required, but {name} would run on {provider}. Check the driver (nvidia-smi) and that "
            "onnxruntime-gpu with its CUDA and cuDNN libraries is installed, or do not require a GPU.",
            code="gpu_required",
            values={"device": options.device, "execution_provider": provider, "gpu_count": gpu_count()},
        )
    return OnnxNetwork(
        session=session,
        inputs={value.name: tuple(value.shape) for value in session.get_inputs()},
        outputs={value.name: tuple(value.shape) for value in session.get_outputs()},
        execution_provider=provider,
        notices=_fallback_notices(options, provider),
        element_types={value.name: value.type for value in (*session.get_inputs(), *session.get_outputs())},
    )


def gpu_count() -> int:
    """Number of CUDA devices that the driver reports; 0 without a driver.

    Asked before ONNX Runtime is: without a GPU it would fill stderr with missing libraries.
    """
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def has_vnni() -> bool:
    """Whether the processor multiplies int8 without saturating; False where the system does not tell."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def available_providers() -> list[str]:
    """Providers that the installed ONNX Runtime was built with; whether they work is another matter."""
    import onnxruntime  # noqa: PLC0415 - 0.2 s that `import app` should not pay

    return list(onnxruntime.get_available_providers())


def _providers(options: SessionOptions) -> list[str]:
    """Providers worth asking for, best first, the CPU last."""
    if options.device == "cpu" or gpu_count() == 0:
        return [CPU]
    wanted = [TENSORRT, CUDA, CPU] if options.device == "tensorrt" else [CUDA, CPU]
    built_in = available_providers()
    return [provider for provider in wanted if provider in built_in]


def _open_session(model: bytes, options: SessionOptions, wanted: list[str], name: str) -> Any:  # noqa: ANN401
    import onnxruntime  # noqa: PLC0415

    if wanted[0] != CPU and hasattr(onnxruntime, "preload_dlls"):
        # CUDA and cuDNN that came as wheels are on no search path; what is missing is printed where results are.
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    failure: Exception | None = None
    for first in range(len(wanted)):
        providers = [(provider, _provider_options(provider, options)) for provider in wanted[first:]]
        try:
            # Its own fallback prints to stdout, where the command line writes JSON.
            return onnxruntime.InferenceSession(
                model, _session_options(options), providers=providers, enable_fallback=0
            )
        except _runtime_errors() as error:
            failure = error
    raise ModelError(
        f"{name} is not a self-contained ONNX model that this version can open: {_reason(failure)}",
        code="network_invalid",
        values={"file": name},
    ) from failure


def _session_options(options: SessionOptions) -> Any:  # noqa: ANN401
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.enable_mem_pattern = options.reuse_memory_pattern
    session.enable_cpu_mem_arena = options.memory_arena
    session.graph_optimization_level = _optimisation_level(options.graph_optimisation)
    if not has_vnni():
        # The fast int8 kernels would saturate; slower ones do not, so an int8 network answers alike everywhere.
        session.add_session_config_entry("session.x64quantprecision", "1")
    session.log_severity_level = 4  # what goes wrong comes back as an exception
    # A path that can hold no file: a model from bytes would otherwise read weights from the working directory.
    session.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return session


def _optimisation_level(wanted: GraphOptimisation) -> Any:  # noqa: ANN401
    import onnxruntime  # noqa: PLC0415

    level = onnxruntime.GraphOptimizationLevel
    levels = {"off": level.ORT_DISABLE_ALL, "basic": level.ORT_ENABLE_BASIC, "extended": level.ORT_ENABLE_EXTENDED}
    return levels.get(wanted, level.ORT_ENABLE_ALL)


def _provider_options(provider: str, options: SessionOptions) -> dict[str, str]:
    if provider == CUDA:
        # Every CT has another shape: an exhaustive search would be repeated, and a CUDA graph captured, for each.
        chosen = {"cudnn_conv_algo_search": options.cudnn_search.upper(), "arena_extend_strategy": "kSameAsRequested"}
        if options.gpu_memory_limit_bytes is not None:
            chosen["gpu_mem_limit"] = str(options.gpu_memory_limit_bytes)
        return chosen
    if provider == TENSORRT and options.tensorrt_cache is not None:
        return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(options.tensorrt_cache)}
    return {}


def _fallback_notices(options: SessionOptions, provider: str) -> tuple[Notice, ...]:
    asked = {"cuda": CUDA, "tensorrt": TENSORRT}.get(options.device)
    gpus = 0 if options.device == "cpu" else gpu_count()
    if provider == asked or (asked is None and (provider in GPU_PROVIDERS or gpus == 0)):
        return ()
    message = f"The device asked for was {options.device}; the network runs on {provider} ({gpus} GPUs seen)."
    values = {"device": options.device, "execution_provider": provider, "gpu_count": gpus}
    return (Notice("device_fallback", message, values),)


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its classes share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    named = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException",
             "NoSuchFile", "NoModel", "EngineError", "EPFail")  # fmt: skip
    return (*(getattr(state, name) for name in named if hasattr(state, name)), ValueError, RuntimeError)


def _reason(error: Exception | None) -> str:
    """First line of the runtime's message, without the paths of its build machine."""
    lines = str(error).splitlines() or [""]
    return lines[0].split(" : ")[-1][:200]
