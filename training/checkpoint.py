"""Runs that resume: everything a step depends on is stored, and written in one rename."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class ResumeError(ValueError):
    """A stored run cannot go on as it was asked to; the message says how it can."""


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential average of weights and batch statistics."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)


def commit() -> str:
    """Commit of the code that runs, with `-dirty` where files differ from it; `unknown` outside a checkout."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"


def start_file(stage: str) -> str:
    """Name, in a fold's folder, of weights to begin with; see `training.starting_point`."""
    return f"{stage}-start.pt"


def begin_with(network: nn.Module, path: Path) -> None:
    """Load the weights in ``path`` if there is such a file."""
    if path.exists():
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


class Checkpoint:
    """One file; ``identity`` names the configuration that it belongs to."""

    def __init__(self, path: Path, identity: str, processes: int = 1) -> None:
        self.path = path
        self.identity = identity
        self.processes = processes

    def resume(
        self,
        network: nn.Module,
        average: AveragedModel,
        optimiser: Optimizer,
        schedule: LRScheduler,
        scaler: GradScaler | None = None,
    ) -> int:
        """Load the state and return the next step; 0 where nothing fitting is stored.

        Raises
        ------
        ResumeError
            If the run was begun with another number of processes, which draw other samples.
        """
        if not self.path.exists():
            return 0
        state = self.read(self.path)
        if state["identity"] != self.identity:
            return 0
        processes = int(state.get("processes", 1))
        if processes != self.processes:
            raise ResumeError(
                f"{self.path} was begun with {processes} processes, not {self.processes}: "
                f"go on with torchrun --nproc-per-node {processes}, or remove it to begin anew"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        if scaler is not None and scaler.is_enabled() and "scaler" in state:
            scaler.load_state_dict(state["scaler"])
        return int(state["step"])

    def put_aside_another(self) -> None:
        """Rename a checkpoint of another configuration: days of work are not overwritten by a changed line."""
        if not self.path.exists():
            return
        other = str(self.read(self.path)["identity"])
        if other != self.identity:
            tag = hashlib.sha256(other.encode()).hexdigest()[:8]
            self.path.replace(self.path.with_name(f"{self.path.stem}-{tag}{self.path.suffix}"))

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """The stored state, by part, on the CPU wherever it was made."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def save(
        self,
        step: int,
        network: nn.Module,
        average: AveragedModel,
        optimiser: Optimizer,
        schedule: LRScheduler,
        scaler: GradScaler | None = None,
        *,
        finished: bool = False,
    ) -> None:
        """Replace the file by the state after ``step`` steps; ``finished`` when these are all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        half_written = self.path.with_suffix(".part")
        torch.save(
            {
                "identity": self.identity,
                "step": step,
                "code": commit(),
                "processes": self.processes,
                "finished": finished,
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "scaler": {} if scaler is None else scaler.state_dict(),
            },
            half_written,
        )
        half_written.replace(self.path)
