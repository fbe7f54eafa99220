"""Runs that resume: everything a step depends on is stored, and written in one rename."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


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


class Checkpoint:
    """One file; ``identity`` names the configuration that it belongs to."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.identity = identity

    def resume(self, network: nn.Module, average: AveragedModel, optimiser: Optimizer, schedule: LRScheduler) -> int:
        """Load the state and return the next step; 0 where nothing fitting is stored."""
        if not self.path.exists():
            return 0
        state = self.read(self.path)
        if state["identity"] != self.identity:
            return 0
        for name, part in (
            ("network", network),
            ("average", average),
            ("optimiser", optimiser),
            ("schedule", schedule),
        ):
            part.load_state_dict(state[name])
        return int(state["step"])

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """The stored state, by part."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state

    def save(
        self, step: int, network: nn.Module, average: AveragedModel, optimiser: Optimizer, schedule: LRScheduler
    ) -> None:
        """Replace the file by the state after ``step`` steps."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        half_written = self.path.with_suffix(".part")
        torch.save(
            {
                "identity": self.identity,
                "step": step,
                "code": commit(),
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            },
            half_written,
        )
        half_written.replace(self.path)
