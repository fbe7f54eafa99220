"""Where a training run computes: one CPU or GPU, or several processes started by `torchrun`.

`torchrun --nproc-per-node N -m training train ...` starts N equal processes; each takes its own GPU and draws its own
samples, gradients are averaged (DDP). On CPUs the processes talk through gloo, on GPUs through NCCL.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import distributed, nn

from training.config import TrainingConfig

PATIENCE = timedelta(hours=12)
"""How long processes wait for one another. One may be preparing hundreds of scans; torchrun ends all if one fails."""


class ProcessError(RuntimeError):
    """The processes of a run cannot work together, or not on this machine; the message says what to do."""


@dataclass(frozen=True)
class Placement:
    """One process of a run.

    Parameters
    ----------
    device
        Where its network lives.
    half
        What autocast computes in; None for float32 throughout.
    rank, processes
        Which process this is, and how many there are.
    """

    device: torch.device
    half: torch.dtype | None
    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes checkpoints and logs."""
        return self.rank == 0

    def share(self, steps: int) -> int:
        """Steps of each process, so that all together see as many samples as one process would in ``steps``."""
        return math.ceil(steps / self.processes)

    def generator(self, seed: int, step: int) -> np.random.Generator:
        """Randomness of one step: by seed and step, and by rank in all processes but the first."""
        return np.random.default_rng((seed, step, self.rank) if self.rank else (seed, step))

    def autocast(self) -> torch.autocast:
        """Mixed precision as configured."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        if self.processes > 1:
            distributed.barrier()


def placement(config: TrainingConfig) -> Placement:
    """Where this process computes; several processes must have joined (`joined`) first.

    Raises
    ------
    ProcessError
        If CUDA is asked for and not there.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ProcessError("device is cuda and torch sees no GPU: install a CUDA build of torch (make TORCH=cuda)")
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if _is_joined() else (0, 1)
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if processes > 1 else 0
    if on_gpu and local_rank >= torch.cuda.device_count():
        raise ProcessError(f"{torch.cuda.device_count()} GPUs and more processes: lower --nproc-per-node to that")
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    return Placement(device, _half(config, device) if config.bfloat16 else None, rank, processes)


def _half(config: TrainingConfig, device: torch.device) -> torch.dtype:
    if config.half != "auto":
        return torch.bfloat16 if config.half == "bfloat16" else torch.float16
    native = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def _is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def joined(config: TrainingConfig) -> Iterator[Placement]:
    """Join the other processes that `torchrun` started, if it did, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield placement(config)
        return
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield placement(config)
    finally:
        distributed.destroy_process_group()


def average_statistics(network: nn.Module, where: Placement) -> None:
    """Give every process the mean of all processes' batch statistics, which gradients do not carry."""
    if where.processes == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
    distributed.all_reduce(flat)
    flat /= where.processes
    means = torch.split(flat, [buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.reshape(buffer.shape))


def require_same_weights(network: nn.Module, where: Placement) -> None:
    """Compare weights and statistics of all processes, bit by bit.

    Raises
    ------
    ProcessError
        If they have drifted apart.
    """
    if where.processes == 1:
        return
    ours = torch.cat([value.detach().reshape(-1).float() for value in network.state_dict().values()])
    first = ours.clone()
    distributed.broadcast(first, 0)
    differing = torch.tensor([int((ours != first).sum())], device=ours.device)
    distributed.all_reduce(differing)
    if int(differing):
        raise ProcessError(f"{int(differing)} weights differ between the {where.processes} processes; report this")
