"""The training loop of both stages: mixed precision, averaged weights, any number of processes, exact resume.

What a step sees depends on seed, step and rank alone, never on what came before it, so a run that was killed goes on
from its last checkpoint as if nothing had happened, with any number of reading workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from training.checkpoint import Checkpoint, averaged
from training.processes import Placement, average_statistics, require_same_weights

N = TypeVar("N", bound=nn.Module)
B = TypeVar("B")
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; steps and learning rate are those of one process.

    Parameters
    ----------
    warm_up
        Share of the steps in which the learning rate rises.
    clip_norm
        Largest norm of a step's gradient.
    log_every, save_every
        Steps between two log entries, two checkpoints.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    ema_decay: float
    warm_up: float
    clip_norm: float
    log_every: int
    save_every: int

    def shared(self, where: Placement) -> Schedule:
        """For several processes: fewer steps of larger batches, learnt from faster by the root of their number."""
        return replace(self, steps=where.share(self.steps), learning_rate=self.learning_rate * where.processes**0.5)


@dataclass(frozen=True)
class Task(Generic[N, B]):
    """What is learnt.

    Parameters
    ----------
    name
        Prefix of the logged losses.
    batch
        Step -> what is seen in it; on the CPU, and the same whenever it is asked.
    losses, total
        Network and batch -> named losses -> what is minimised.
    """

    name: str
    batch: Callable[[int], B]
    losses: Callable[[N, B], Losses]
    total: Callable[[Losses], Tensor]


class _Step(nn.Module, Generic[N, B]):
    """All of a step's passes through the network as one module, which is what DDP can wrap."""

    def __init__(self, network: N, losses: Callable[[N, B], Losses]) -> None:
        super().__init__()
        self.network = network
        self.losses = losses

    def forward(self, batch: B) -> Losses:
        return self.losses(self.network, batch)


def train_network(
    network: N, task: Task[N, B], schedule: Schedule, state: Checkpoint, where: Placement, *, workers: int = 0
) -> N:
    """Train to the end of the schedule, from the last checkpoint if there is one.

    Parameters
    ----------
    schedule
        Of one process; it is shared among those there are.
    workers
        Processes that make batches ahead; 0 makes them in this one.

    Returns
    -------
    torch.nn.Module
        The exponential average of the weights, in evaluation mode, on the CPU.

    Raises
    ------
    ResumeError
        If the stored run has another number of processes.
    ProcessError
        If the processes' weights have drifted apart.
    """
    schedule = schedule.shared(where)
    network.to(where.device)
    average = averaged(network, schedule.ema_decay)
    optimiser = torch.optim.AdamW(network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    rates = OneCycleLR(optimiser, schedule.learning_rate, schedule.steps, pct_start=schedule.warm_up)
    scaler = GradScaler(where.device.type, enabled=where.half == torch.float16)
    start = state.resume(network, average, optimiser, rates, scaler)
    where.wait_for_all()  # nobody may still be reading what is renamed next
    if where.leads:
        state.put_aside_another()
    step_losses = _distributed(_Step(network, task.losses), where)
    folder = state.path.parent
    numbers = range(start, schedule.steps)
    with SummaryWriter(str(folder / "log")) if where.leads else nullcontext() as log:
        bar = tqdm(
            zip(numbers, _batches(task.batch, numbers, workers), strict=True),
            initial=start,
            total=schedule.steps,
            desc=folder.name,
            mininterval=20,
            disable=not where.leads,
        )
        for step, batch in bar:
            losses: Losses = step_losses(on_device(batch, where.device))
            optimiser.zero_grad()
            scaler.scale(task.total(losses)).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(network.parameters(), schedule.clip_norm)
            _advance(optimiser, rates, scaler)
            average_statistics(network, where)
            average.update_parameters(network)
            if log is not None and step % schedule.log_every == 0:
                for name, value in losses.items():
                    log.add_scalar(f"{task.name}/{name}", value.item(), step)
                bar.set_postfix({name: f"{value.item():.3f}" for name, value in losses.items()}, refresh=False)
            finished = step + 1 == schedule.steps
            if finished or (step + 1) % schedule.save_every == 0:
                require_same_weights(average, where)
                if where.leads:
                    state.save(step + 1, network, average, optimiser, rates, scaler, finished=finished)
    return cast(N, average.module.to("cpu").eval())


def _advance(optimiser: Optimizer, rates: LRScheduler, scaler: GradScaler) -> None:
    """One step; where a float16 gradient overflowed none is taken, and the learning rate stays."""
    before = scaler.get_scale()
    scaler.step(optimiser)
    scaler.update()
    if scaler.get_scale() >= before:
        rates.step()


def _distributed(step: _Step[N, B], where: Placement) -> nn.Module:
    """Averages gradients over the processes; batch statistics are averaged by the loop."""
    return step if where.processes == 1 else DistributedDataParallel(step, forward_sync_buffers=False)


class _Steps(Dataset[B]):
    """Batches by the number of their step."""

    def __init__(self, batch: Callable[[int], B]) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> B:
        return self.batch(step)


def _batches(batch: Callable[[int], B], numbers: range, workers: int) -> Iterator[B]:
    """The batches of these steps, in order; as many are made ahead as there are workers, twice over."""
    if workers == 0:
        yield from map(batch, numbers)
        return
    # Forked, so that workers share what is in memory; a generator of its own, because dropout draws from the usual one.
    yield from DataLoader(
        _Steps(batch),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        multiprocessing_context="fork",
        generator=torch.Generator(),
    )


def on_device(batch: B, device: torch.device) -> B:
    """The batch with its tensors on a device; anything but tensors and dataclasses of them stays as it is."""
    if device.type == "cpu":
        return batch
    if isinstance(batch, Tensor):
        return cast(B, batch.to(device, non_blocking=True))
    if is_dataclass(batch) and not isinstance(batch, type):
        moved = {field.name: on_device(getattr(batch, field.name), device) for field in fields(batch)}
        return cast(B, replace(batch, **moved))
    return batch
