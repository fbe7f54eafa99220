"""Is ReLU the most accurate activation function? The same small CNN, ten activations, patient folds, several seeds.

`python -m training.compare_activations run` trains what is still missing and appends one JSON line to
``OUT/runs.jsonl`` for each finished network, so it may be killed and started again; `... report` writes
``docs/activations.md`` from whatever has finished, and a table and a plot into the reports of the model.

Everything but the activation is equal: architecture, initialisation, batches, augmentation, steps, learning rate. Runs
go through the activations before the next fold and seed, so an unfinished study compares equals.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.evaluation.estimates import area_under_roc
from training.crops import join_annotations
from training.splits import Split, split_patients

log = logging.getLogger(__name__)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "LeakyReLU": lambda: nn.LeakyReLU(0.01),
    "PReLU": nn.PReLU,
    "ELU": nn.ELU,
    "SELU": nn.SELU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
BASELINE = "ReLU"


@dataclass(frozen=True)
class Budget:
    """What every run of the study shares."""

    steps: int = 270
    batch: int = 128
    nodules_per_batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    widths: tuple[int, ...] = (16, 32, 64, 128)
    crop_px: int = 40
    max_shift_px: int = 3
    folds: int = 3
    seeds: int = 3
    split_seed: int = 0


@dataclass(frozen=True)
class Patches:
    """Axial patches of LUNA16 candidates with their joined labels."""

    images: NDArray[np.uint8]
    """(n, 64, 64), the candidate at (32, 32)."""
    is_nodule: NDArray[np.bool_]
    patient_id: NDArray[np.str_]


@dataclass(frozen=True)
class Run:
    """One finished network."""

    activation: str
    seed: int
    fold: int
    auroc: float
    n_held_out: int
    n_nodules: int
    training_loss: float
    cpu_seconds: float
    budget: dict[str, object]

    @property
    def key(self) -> tuple[str, int, int]:
        """What the run is of."""
        return self.activation, self.seed, self.fold


def load_patches(data: Path) -> Patches:
    """Read the patches and join their labels: a candidate strictly within d/2 of an annotation is a nodule."""
    with np.load(data / "luna16_axial_patches.npz") as stored:
        series = stored["series"]
        uids, patients = stored["series_uid"][series], stored["patient_id"][series]
        images, centers = stored["patches"], stored["center_xyz_mm"]
    hit = join_annotations(uids, centers, data / "luna16" / "annotations.csv")
    return Patches(images, hit >= 0, patients)


def study_split(patches: Patches, budget: Budget) -> Split:
    """The patient folds of the study, with even numbers of nodules."""
    nodules_of_patient: dict[str, float] = {}
    for patient, is_nodule in zip(patches.patient_id.tolist(), patches.is_nodule.tolist(), strict=True):
        nodules_of_patient[patient] = nodules_of_patient.get(patient, 0.0) + is_nodule
    return split_patients(nodules_of_patient, budget.folds, budget.split_seed, nodules_of_patient)


def small_cnn(activation: Callable[[], nn.Module], widths: Sequence[int]) -> nn.Sequential:
    """Four blocks of convolution, batch norm, activation and pooling; global mean; one log-odds."""
    layers: list[nn.Module] = []
    channels = 1
    for width in widths:
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), activation(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))


def study_keys(activations: Sequence[str], budget: Budget) -> Iterator[tuple[str, int, int]]:
    """Every run in the order of the study: seed, fold, then activation."""
    for seed in range(budget.seeds):
        for fold in range(budget.folds):
            for name in activations:
                yield name, seed, fold


def run_study(patches: Patches, out: Path, budget: Budget, activations: Sequence[str] = tuple(ACTIVATIONS)) -> None:
    """Train what is missing; each finished run is one appended line and one file of held-out scores."""
    out.mkdir(parents=True, exist_ok=True)
    split = study_split(patches, budget)
    finished = {run.key for run in read_runs(out, budget)}
    patients = patches.patient_id.tolist()
    for key in study_keys(activations, budget):
        if key in finished:
            continue
        name, seed, fold = key
        run, scores = train_one(patches, split.held_out(fold, patients), key, budget)
        # The scores first: the line says that the run is complete.
        np.save(scores_path(out, key), scores)
        with (out / "runs.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(run)) + "\n")
        log.info("%s seed %d fold %d: AUROC %.4f in %.0f s", name, seed, fold, run.auroc, run.cpu_seconds)


def read_runs(out: Path, budget: Budget) -> list[Run]:
    """Finished runs of this budget; a line cut off by a kill, or of another budget, does not count."""
    path = out / "runs.jsonl"
    if not path.exists():
        return []
    wanted = json.loads(json.dumps(asdict(budget)))
    runs = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            run = Run(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
        if _comparable(run.budget) == _comparable(wanted) and scores_path(out, run.key).exists():
            runs[run.key] = run
    return list(runs.values())


def scores_path(out: Path, key: tuple[str, int, int]) -> Path:
    """Where the held-out scores of a run lie: float32, in the order of the patches held out."""
    return out / f"scores_{key[0]}_seed{key[1]}_fold{key[2]}.npy"


def train_one(
    patches: Patches, held_out: NDArray[np.bool_], key: tuple[str, int, int], budget: Budget
) -> tuple[Run, NDArray[np.float32]]:
    """Train one network and score the patches of the patients held out."""
    name, seed, fold = key
    # Seeded by seed and fold, not by activation: all ten start from the same weights and see the same batches.
    torch.manual_seed(1000 * seed + fold)
    generator = np.random.default_rng([seed, fold])
    network = small_cnn(ACTIVATIONS[name], budget.widths)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    start = time.process_time()
    loss = _train(network, patches, np.flatnonzero(~held_out), generator, budget)
    scores = _score(network, patches.images[held_out], budget.crop_px)
    labels = patches.is_nodule[held_out]
    run = Run(
        activation=name,
        seed=seed,
        fold=fold,
        auroc=area_under_roc(labels, scores),
        n_held_out=int(labels.size),
        n_nodules=int(labels.sum()),
        training_loss=loss,
        cpu_seconds=time.process_time() - start,
        budget=asdict(budget),
    )
    return run, scores


def _train(
    network: nn.Sequential, patches: Patches, usable: NDArray[np.intp], generator: np.random.Generator, budget: Budget
) -> float:
    """Train in place; the mean loss of the last tenth of the steps."""
    optimiser = torch.optim.AdamW(network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.learning_rate, total_steps=budget.steps)
    nodules, others = usable[patches.is_nodule[usable]], usable[~patches.is_nodule[usable]]
    labels = (torch.arange(budget.batch) < budget.nodules_per_batch).float()
    losses: list[float] = []
    network.train()
    for _ in range(budget.steps):
        drawn = np.concatenate(
            [
                generator.choice(nodules, budget.nodules_per_batch),
                generator.choice(others, budget.batch - budget.nodules_per_batch),
            ]
        )
        images = _augmented(patches.images[drawn], generator, budget)
        loss = nn.functional.binary_cross_entropy_with_logits(_log_odds(network, images), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, budget.steps // 10) :]))


def _augmented(images: NDArray[np.uint8], generator: np.random.Generator, budget: Budget) -> Tensor:
    """A crop around a shifted centre, mirrored and turned; one transform to a batch, a new one for the next."""
    row, column = generator.integers(-budget.max_shift_px, budget.max_shift_px + 1, size=2)
    crop = np.rot90(_cropped(images, budget.crop_px, int(row), int(column)), int(generator.integers(4)), axes=(1, 2))
    return _as_input(crop[:, :, ::-1] if generator.integers(2) else crop)


def _cropped(images: NDArray[np.uint8], size: int, row_shift: int = 0, column_shift: int = 0) -> NDArray[np.uint8]:
    row, column = images.shape[1] // 2 + row_shift - size // 2, images.shape[2] // 2 + column_shift - size // 2
    return images[:, row : row + size, column : column + size]


def _as_input(images: NDArray[np.uint8]) -> Tensor:
    values = torch.from_numpy(np.ascontiguousarray(images)).float().div_(127.5).sub_(1.0)
    return values[:, None].contiguous(memory_format=torch.channels_last)


def _log_odds(network: nn.Sequential, images: Tensor) -> Tensor:
    # The last layer in float32: bfloat16 log-odds have so few values that they tie.
    with torch.autocast("cpu", torch.bfloat16):
        features = network[:-1](images)
    odds: Tensor = network[-1](features.float())
    return odds[:, 0]


def _score(network: nn.Sequential, images: NDArray[np.uint8], crop_px: int) -> NDArray[np.float32]:
    network.eval()
    with torch.inference_mode():
        parts = [
            _log_odds(network, _as_input(_cropped(images[first : first + 512], crop_px)))
            for first in range(0, len(images), 512)
        ]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def _comparable(budget: dict[str, object]) -> dict[str, object]:
    """What must agree for two runs to be of one study; more seeds may be added later."""
    return {name: value for name, value in budget.items() if name != "seeds"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `run` and `report`."""
    parser = argparse.ArgumentParser(prog="python -m training.compare_activations", description=__doc__)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/activations"))
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where activations.md goes")
    parser.add_argument(
        "--reports", type=Path, default=Path("model_store/lungnodule/0.2.0/reports"), help="where table and plot go"
    )
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--seeds", type=int, default=Budget.seeds)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    budget = Budget(steps=args.steps, seeds=args.seeds)
    patches = load_patches(args.data)
    if args.command == "run":
        torch.set_num_threads(args.threads)
        torch.use_deterministic_algorithms(mode=True)
        run_study(patches, args.out, budget)
        return 0
    # Only here: training needs no matplotlib.
    from training.activation_report import write_activation_report  # noqa: PLC0415

    write_activation_report(patches, args.out, args.docs, budget, reports=args.reports)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
