"""Flat commands: `python -m training COMMAND --config training/configs/NAME.toml`.

    prepare    make the caches and the split by patient
    train      train both stages, or one with --stage; resumes where it stopped
    evaluate   measure every figure of the model card on patients and lungs never trained on
    export     write a verified folder of the model store

Without a configuration, for a network that was trained elsewhere (each has its own --help):

    import-monai    MONAI's lung nodule detection bundle to a verified folder of the model store
    compare-monai   the same scans through MONAI's own pipeline and through the service's
    practice-monai  a small bundle, trained here on phantoms, to prove the other two

`evaluate --submission results.csv --annotations annotations.csv ...` scores any LUNA16 submission instead.
`torchrun --nproc-per-node N -m training prepare|train ...` shares the work among N processes, a GPU each.
"""

from __future__ import annotations

import argparse
import os
import sys
from itertools import chain
from pathlib import Path

import torch

from app.evaluation.reference import Luna16Error
from training import compare_monai, import_monai, practice_bundle, submission
from training.checkpoint import ResumeError
from training.config import TrainingConfig, load_config
from training.evaluate import evaluate
from training.export import export
from training.lidc import LidcError
from training.luna16_evaluation import evaluate_luna16
from training.luna16_run import describe, prepare_luna16
from training.prepare import load_background, prepare
from training.processes import ProcessError, joined
from training.splits import SplitError
from training.train import train

_OF_OTHERS = {
    "import-monai": import_monai,
    "compare-monai": compare_monai,
    "practice-monai": practice_bundle,
}
"""Commands without an experiment's configuration."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run one command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] and arguments[0] in _OF_OTHERS:
        command = _OF_OTHERS[arguments[0]]
        parser = argparse.ArgumentParser(
            prog=f"python -m training {arguments[0]}",
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(parser)
        status: int = command.run(parser.parse_args(arguments[1:]))
        return status
    if arguments[:1] == ["evaluate"] and any(word.startswith("--submission") for word in arguments):
        parser = argparse.ArgumentParser(prog="python -m training evaluate")
        submission.add_submission_arguments(parser)
        return submission.run_submission(parser.parse_args(arguments[1:]))
    parsed = _parser().parse_args(arguments)
    config = load_config(parsed.config)
    torch.set_num_threads(config.threads)
    # cuBLAS repeats itself only with this, and reads it when CUDA starts. Some CUDA kernels have no repeatable form.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True, warn_only=torch.cuda.is_available())
    try:
        _run(parsed, config)
    except (Luna16Error, LidcError, SplitError, ResumeError, ProcessError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "train", "evaluate", "export"):
        command = commands.add_parser(name)
        command.add_argument(
            "--config", type=Path, required=True, help="an experiment, e.g. training/configs/lungnodule.toml"
        )
        if name != "prepare":
            command.add_argument("--fold", type=int, default=0, help="fold kept out of training; 0 is shipped")
        if name == "train":
            command.add_argument("--stage", choices=("characteriser", "detector"))
        if name == "export":
            command.add_argument("--store", type=Path, default=Path("model_store"))
    return parser


def _run(parsed: argparse.Namespace, config: TrainingConfig) -> None:
    whole_luna16 = config.data.luna16 is not None
    if parsed.command == "prepare" and whole_luna16:
        with joined(config) as where:
            cases = prepare_luna16(config, where)
        if where.leads:
            describe(config, cases)
    elif parsed.command == "prepare":
        prepared = prepare(config)
        for scan in chain.from_iterable(config.data.lung_folds):
            load_background(config, scan)
        sys.stdout.write(
            f"{len(prepared.patches.crops)} candidate patches, {len(prepared.stacks.ratings)} nodules, "
            f"split {prepared.split.sha256}\n"
        )
    elif parsed.command == "train":
        train(config, stage=parsed.stage, fold=parsed.fold)
    elif parsed.command == "evaluate" and whole_luna16:
        evaluate_luna16(config, fold=parsed.fold)
    elif parsed.command == "evaluate":
        evaluate(config, fold=parsed.fold)
    else:
        folder = export(config, fold=parsed.fold, store=parsed.store)
        sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    sys.exit(main())
