"""The shipped model and the baseline on the same scans: whether the 3-D network is worth its cost.

    python -m training.compare_detectors --config training/configs/NAME.toml --model model_store/NAME/VERSION

Both see each real scan as it was acquired, and copies of the lungs that the model's fold never saw with inserted
nodules of that fold's patients, whom neither has seen. Nothing is chosen here: the baseline is trained from the
configuration's seed on the same split and judged once. `training.comparison_report` writes the page.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from app.evaluation.froc import Mark
from app.evaluation.reference import Luna16Error
from app.imaging.acceptance import AcceptanceReport, SeriesSummary
from app.imaging.errors import LungNoduleError
from app.imaging.volume import CtVolume
from app.inference.manifest import OperatingPointEntry
from app.inference.model_store import LoadedModel, load_model, warm_up
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse_volume
from training.baseline import Baseline, Budget, find_marks, load_or_train
from training.checkpoint import commit
from training.comparison_report import BASELINE, MODEL, Comparison, RealTrial, write_comparison
from training.config import TrainingConfig, load_config
from training.detection_evaluation import EVERY_CANDIDATE, ScanTrial, marks_of
from training.inserted_scans import inserted_scan
from training.lidc import LidcError
from training.lung_background import Background, Finding
from training.lung_evaluation import NODULES_EACH, POPULATIONS
from training.nodule_bank import NoduleBank
from training.prepare import load_background, prepare
from training.real_scans import RealScan, load_real_scan
from training.splits import Split, SplitError, read_split


@dataclass(frozen=True)
class System:
    """One way of finding nodules."""

    every_mark: Callable[[str, CtVolume], tuple[Mark, ...]]
    """Name and scan -> all it has to say, however improbable."""
    as_used: Callable[[CtVolume], object]
    """What a user waits for, from the scan in memory to its findings; this is timed."""
    thresholds: Mapping[str, float]
    """What -> probability from which marks are counted."""


@dataclass(frozen=True)
class Effort:
    """How much is tried; the default copies are those that `evaluate` measures the model on."""

    copies: int = POPULATIONS
    """Of each lung."""
    nodules_each: int = NODULES_EACH
    timed_runs: int = 3
    """Of each system on each scan as acquired."""


def model_system(model: LoadedModel, threads: int) -> System:
    """The shipped model through the service's own pipeline; for `every_mark` its candidates pass down to 0."""
    everything = OperatingPointEntry(threshold=0.0, description="for the comparison")
    points = {**model.manifest.operating_points, EVERY_CANDIDATE: everything}
    opened = replace(model, manifest=model.manifest.model_copy(update={"operating_points": points}))
    default = model.manifest.default_operating_point

    def marks(name: str, volume: CtVolume, operating_point: str) -> tuple[Mark, ...]:
        acceptance = AcceptanceReport("dicom", 0, (), SeriesSummary(None, "CT", volume.hu.shape[0]))
        options = AnalysisOptions(operating_point=operating_point, threads=threads)
        return marks_of(name, analyse_volume(volume, acceptance, opened, options))

    return System(
        every_mark=lambda name, volume: marks(name, volume, EVERY_CANDIDATE),
        as_used=lambda volume: marks("", volume, default),
        thresholds={"0.5": 0.5, "operating point": model.manifest.operating_points[default].threshold},
    )


def baseline_system(baseline: Baseline, threads: int) -> System:
    """Blobs and the small CNN; it has no operating point."""
    return System(
        every_mark=lambda name, volume: find_marks(volume, baseline, name, threads=threads),
        as_used=lambda volume: find_marks(volume, baseline, "", threads=threads),
        thresholds={"0.5": 0.5},
    )


def try_real(system: System, scan: RealScan, timed_runs: int) -> RealTrial:
    """One system on one scan as acquired: everything it says, and the median seconds of its usual way."""
    seconds = []
    for _ in range(timed_runs):
        started = time.perf_counter()
        system.as_used(scan.volume)
        seconds.append(time.perf_counter() - started)
    trial = ScanTrial(scan.name, scan.nodules, scan.irrelevant, system.every_mark(scan.name, scan.volume))
    sys.stderr.write(f"{scan.name}: {len(trial.marks)} marks\n")
    slices, _, _ = scan.volume.grid.shape_zyx
    return RealTrial(trial, seen_in_training=scan.seen_in_training, slices=slices, seconds=statistics.median(seconds))


def try_copies(
    systems: Mapping[str, System],
    scan: RealScan,
    background: Background,
    bank: NoduleBank,
    effort: Effort,
    seed: int,
) -> dict[str, list[ScanTrial]]:
    """All systems on the same copies of one lung with nodules of the bank at their own size.

    What the scan holds of its own, nodules included, is the same in every copy: marks on it are ignored.
    """
    own = (*scan.irrelevant, *(Finding(nodule.center_lps_mm, nodule.diameter_mm) for nodule in scan.nodules))
    trials: dict[str, list[ScanTrial]] = {name: [] for name in systems}
    for number in range(effort.copies):
        rng = np.random.default_rng((seed, number))
        copy, truths = inserted_scan(scan.volume, background, bank, effort.nodules_each, rng, own_size=True)
        copy_name = f"{scan.name}-{number}"
        for name, system in systems.items():
            trials[name].append(ScanTrial(copy_name, truths, own, system.every_mark(copy_name, copy)))
        sys.stderr.write(f"{scan.name}: copy {number + 1} of {effort.copies}\n")
    return trials


def compare(
    config: TrainingConfig, model_folder: Path, fold: int, work: Path, effort: Effort, budget: Budget
) -> Comparison:
    """Train or read the baseline, load the model, and run both on every scan of `data.lung_folds`.

    Raises
    ------
    SplitError
        If the split that ships with the model is not the run's.
    app.imaging.errors.LungNoduleError
        If a scan cannot be read or the model cannot be loaded.
    """
    code = commit()
    prepared = prepare(config)
    require_same_split(model_folder, prepared.split)
    model = load_model(model_folder, SessionOptions(device="cpu", threads=config.threads))
    warm_up(model)
    baseline = load_or_train(config, prepared.patches, prepared.split, fold, work, budget)
    systems = {MODEL: model_system(model, config.threads), BASELINE: baseline_system(baseline, config.threads)}
    bank = prepared.bank.of_patients(set(prepared.split.patients(fold))).reference_standard()
    load_before = os.getloadavg()[0]
    scans = {scan: load_real_scan(config, scan, fold) for scan in chain.from_iterable(config.data.lung_folds)}
    # Scan by scan, so that both systems meet the machine in the same mood.
    real = [{name: try_real(system, scan, effort.timed_runs) for name, system in systems.items()}
            for scan in scans.values()]  # fmt: skip
    load = statistics.fmean((load_before, os.getloadavg()[0]))
    copies = [
        try_copies(systems, scans[scan], load_background(config, scan), bank, effort, config.seed)
        for scan in config.data.held_out_scans(fold)
    ]
    return Comparison(
        real={name: tuple(trials[name] for trials in real) for name in systems},
        copies={name: tuple(chain.from_iterable(trials[name] for trials in copies)) for name in systems},
        thresholds={name: system.thresholds for name, system in systems.items()},
        model=f"{model.identity.name} {model.identity.version} (manifest {model.identity.sha256[:12]})",
        fold=fold,
        bank=bank,
        baseline=baseline,
        threads=config.threads,
        timed_runs=effort.timed_runs,
        load=load,
        cores=os.cpu_count() or 1,
        provenance=f"commit {code}, seed {config.seed}, split {prepared.split.sha256[:12]}",
    )


def require_same_split(model_folder: Path, split: Split) -> None:
    """Raise SplitError where the split that ships with the model is not the run's."""
    shipped = read_split(model_folder / "split.json")
    if shipped.sha256 != split.sha256:
        raise SplitError(
            f"the model was trained on split {shipped.sha256[:12]}, the run of this configuration on "
            f"{split.sha256[:12]}; give the configuration that the model was trained with"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status (2: a file cannot be used)."""
    parser = argparse.ArgumentParser(
        prog="python -m training.compare_detectors", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--config", type=Path, required=True, help="the experiment that the model comes from")
    parser.add_argument("--model", type=Path, required=True, help="its folder, e.g. model_store/lungnodule/0.1.0")
    parser.add_argument("--out", type=Path, default=Path("docs/comparison.md"), help="default %(default)s")
    parser.add_argument("--fold", type=int, default=0, help="the fold that the model is of; default %(default)s")
    parser.add_argument("--work", type=Path, help="where the baseline's CNN is kept; default: in the run's folder")
    parser.add_argument("--copies", type=int, default=Effort.copies, help="of each lung; default %(default)s")
    parser.add_argument("--nodules-each", type=int, default=Effort.nodules_each, help="default %(default)s")
    parser.add_argument("--timed-runs", type=int, default=Effort.timed_runs, help="of each scan; default %(default)s")
    parser.add_argument("--steps", type=int, default=Budget.steps, help="of the baseline's CNN; default %(default)s")
    args = parser.parse_args(arguments)
    config = load_config(args.config)
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(mode=True)
    work = args.work or config.folder / "baseline"
    effort, budget = Effort(args.copies, args.nodules_each, args.timed_runs), Budget(steps=args.steps)
    try:
        comparison = compare(config, args.model, args.fold, work, effort, budget)
    except (LungNoduleError, SplitError, Luna16Error, LidcError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    write_comparison(args.out, comparison)
    sys.stdout.write(f"{args.out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
