"""The detector to beat: blobs inside the lungs (`training.log_candidates`), each scored by a small axial CNN.

The CNN reads one slice of 48 x 48 pixels at 0.7 mm and is trained on LUNA16's candidate patches for a few minutes; a
candidate's probability is that of the mean log-odds of three slices. No 3-D network, no inserted nodules, no lungs of
whole scans: what the shipped model must be better than to be worth its cost.

    python -m training.baseline train --config training/configs/NAME.toml
    python -m training.baseline mark  --config training/configs/NAME.toml --scan SCAN --submission marks.csv

`mark` writes a LUNA16 submission. Research use only, not for diagnosis.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from app.evaluation.estimates import Estimate
from app.evaluation.froc import Mark
from app.evaluation.submission import COLUMNS
from app.imaging.lungs import segment_lungs
from app.imaging.preprocessing import CropSpec, PreprocessingSpec, preprocess, sample_crops
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from training.compare_activations import small_cnn
from training.config import TrainingConfig, load_config
from training.crop_augmentation import middle, random_views
from training.crops import CandidatePatches
from training.log_candidates import BlobSpec, find_blobs
from training.metrics import auroc
from training.prepare import prepare
from training.splits import Split, assert_no_leak

SCORED_AT_ONCE = 256
SLICE_OFFSETS_MM = (-1.5, 0.0, 1.5)


@dataclass(frozen=True)
class Budget:
    """The CNN and its schedule; ``steps`` are about three minutes of one idle core."""

    steps: int = 2000
    batch: int = 128
    nodules_per_batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    widths: tuple[int, ...] = (16, 32, 64, 128)
    size_px: int = 48
    bfloat16: bool = True
    """In training; scores are float32."""


@dataclass(frozen=True)
class Baseline:
    """A trained baseline and how it came about."""

    network: nn.Sequential
    preprocessing: PreprocessingSpec
    crop: CropSpec
    steps: int
    """It was trained for."""
    cpu_seconds: float
    """Of training, on one thread."""
    auroc: Estimate
    """Nodule against non-nodule on the patches of the held-out patients, resampled by patient."""
    blobs: BlobSpec


def train_baseline(
    config: TrainingConfig, patches: CandidatePatches, split: Split, fold: int, budget: Budget = Budget()
) -> Baseline:
    """Train on the patches of all patients of the split outside ``fold``, from the configuration's seed.

    Raises
    ------
    training.splits.SplitError
        If a patient kept out by the configuration is in the split.
    """
    assert_no_leak(split.fold_of_patient, config.data.held_out_patients)
    known = np.isin(patches.patient_id, list(split.fold_of_patient))
    held_out = np.isin(patches.patient_id, split.patients(fold))
    started = time.process_time()
    network = _trained(patches, np.flatnonzero(known & ~held_out), budget, config.seed + fold)
    seconds = time.process_time() - started
    # The same middle pixels and grey values as `sample_crops` gives in a scan.
    crops = middle(torch.from_numpy(patches.crops[held_out][:, None]), budget.size_px).float() / 255
    figure = auroc(patches.is_nodule[held_out], _log_odds(network, crops.numpy()), patches.patient_id[held_out])
    return _baseline(network, config, budget, seconds, figure)


def find_marks(volume: CtVolume, baseline: Baseline, name: str, *, threads: int = 1) -> tuple[Mark, ...]:
    """Every candidate of a scan with its probability, by falling probability.

    Of candidates that lie within one another's blob only the most probable is kept.
    """
    lungs = segment_lungs(volume)
    prepared = preprocess(volume, lungs, baseline.preprocessing, threads=threads)
    blobs = find_blobs(prepared, lungs, baseline.preprocessing, baseline.blobs)
    del prepared
    log_odds = np.empty(len(blobs.center_lps_mm))
    for first in range(0, len(log_odds), SCORED_AT_ONCE):
        part = slice(first, first + SCORED_AT_ONCE)
        log_odds[part] = _log_odds(baseline.network, sample_crops(volume, blobs.center_lps_mm[part], baseline.crop))
    kept = most_probable(blobs.center_lps_mm, blobs.diameter_mm / 2, log_odds)
    probability = 1 / (1 + np.exp(-log_odds[kept]))
    return tuple(
        Mark(name, (float(x), float(y), float(z)), float(p))
        for (x, y, z), p in zip(blobs.center_lps_mm[kept], probability, strict=True)
    )


def most_probable(
    center_lps_mm: NDArray[np.float64], radius_mm: NDArray[np.float64], score: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Indices by falling score, without points that lie in the ball of a point of higher score."""
    left = np.argsort(-score, kind="stable")
    kept: list[int] = []
    while left.size:
        best = int(left[0])
        kept.append(best)
        left = left[1:]
        distance = np.linalg.norm(center_lps_mm[left] - center_lps_mm[best], axis=1)
        left = left[distance >= radius_mm[best]]
    return np.asarray(kept, dtype=np.intp)


def load_or_train(
    config: TrainingConfig, patches: CandidatePatches, split: Split, fold: int, folder: Path, budget: Budget = Budget()
) -> Baseline:
    """The baseline stored in ``folder`` where it is of this configuration, split, fold and budget; else a new one."""
    path = folder / f"baseline-fold{fold}.pt"
    identity = _identity(config, split, fold, budget)
    if path.exists():
        stored = torch.load(path, weights_only=True)
        if stored["identity"] == identity:
            network = small_cnn(nn.ReLU, budget.widths)
            network.load_state_dict(stored["network"])
            figure = Estimate(*stored["auroc"])
            return _baseline(network.eval(), config, budget, stored["cpu_seconds"], figure)
    baseline = train_baseline(config, patches, split, fold, budget)
    folder.mkdir(parents=True, exist_ok=True)
    half_written = path.with_suffix(".part")
    torch.save(
        {
            "identity": identity,
            "network": baseline.network.state_dict(),
            "cpu_seconds": baseline.cpu_seconds,
            "auroc": [baseline.auroc.value, baseline.auroc.low, baseline.auroc.high, baseline.auroc.n],
        },
        half_written,
    )
    half_written.replace(path)
    return baseline


def _baseline(
    network: nn.Sequential, config: TrainingConfig, budget: Budget, cpu_seconds: float, figure: Estimate
) -> Baseline:
    crop = config.crop.model_copy(update={"size_px": budget.size_px, "slice_offsets_mm": SLICE_OFFSETS_MM})
    return Baseline(network, config.preprocessing, crop, budget.steps, cpu_seconds, figure, BlobSpec())


def _identity(config: TrainingConfig, split: Split, fold: int, budget: Budget) -> str:
    facts = [
        config.digest("preprocessing", "seed"),
        config.crop.spacing_mm,
        config.crop.window_hu,
        split.sha256,
        fold,
        asdict(budget),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _trained(patches: CandidatePatches, usable: NDArray[np.intp], budget: Budget, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    network = small_cnn(nn.ReLU, budget.widths)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.learning_rate, total_steps=budget.steps)
    nodules, others = usable[patches.is_nodule[usable]], usable[~patches.is_nodule[usable]]
    labels = (torch.arange(budget.batch) < budget.nodules_per_batch).float()
    network.train()
    for _ in range(budget.steps):
        rows = np.concatenate(
            [
                rng.choice(nodules, budget.nodules_per_batch),
                rng.choice(others, budget.batch - budget.nodules_per_batch),
            ]
        )
        views, _ = random_views(torch.from_numpy(patches.crops[rows][:, None]), budget.size_px, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=budget.bfloat16):
            log_odds = _forward(network, views)
        loss = binary_cross_entropy_with_logits(log_odds, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def _forward(network: nn.Sequential, views: Tensor) -> Tensor:
    """(n, 1, rows, columns) in 0..1 -> (n,) log-odds; the last layer always in float32, so that they do not tie."""
    features = network[:-1]((views * 2 - 1).contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", enabled=False):
        odds: Tensor = network[-1](features.float())
    return odds[:, 0]


def _log_odds(network: nn.Sequential, crops: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, slices, rows, columns) -> (n,) mean over the slices."""
    with torch.inference_mode():
        parts = [
            _forward(network, torch.from_numpy(part).flatten(0, 1)[:, None]).reshape(part.shape[:2]).mean(dim=1)
            for part in np.array_split(crops, max(1, len(crops) // SCORED_AT_ONCE))
        ]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)


def write_submission(path: Path, marks: Sequence[Mark]) -> None:
    """A LUNA16 submission: one row for each mark."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows([mark.series_uid, *mark.center_lps_mm, mark.probability] for mark in marks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `train` and `mark`."""
    parser = argparse.ArgumentParser(prog="python -m training.baseline", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("command", choices=("train", "mark"))
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, help="patients kept out of training; default %(default)s")
    parser.add_argument("--work", type=Path, help="where the trained CNN is kept; default: the run's folder")
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--scan", type=Path, help="mark: what to read")
    parser.add_argument("--submission", type=Path, help="mark: the CSV to write")
    args = parser.parse_args(arguments)
    if args.command == "mark" and (args.scan is None or args.submission is None):
        parser.error("mark needs --scan and --submission")
    config = load_config(args.config)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(mode=True)
    prepared = prepare(config)
    budget = Budget(steps=args.steps)
    baseline = load_or_train(
        config, prepared.patches, prepared.split, args.fold, args.work or config.folder / "baseline", budget
    )
    sys.stdout.write(
        f"trained {budget.steps} steps in {baseline.cpu_seconds:.0f} CPU seconds; AUROC on the patches of held-out "
        f"patients {baseline.auroc}\n"
    )
    if args.command == "mark":
        volume, report = read_ct(args.scan)
        name = report.chosen.series_instance_uid or args.scan.stem
        marks = find_marks(volume, baseline, name, threads=config.threads)
        write_submission(args.submission, marks)
        sys.stdout.write(f"{len(marks)} marks, {sum(m.probability >= 0.5 for m in marks)} of them at 0.5 or above\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
