"""Train the stages of one configuration."""

from __future__ import annotations

from pathlib import Path

from training.characteriser import Characteriser
from training.config import TrainingConfig
from training.detector import Detector
from training.inserted_stacks import make_inserted_stacks
from training.luna16_run import train_luna16
from training.prepare import load_background, prepare
from training.processes import Placement, joined
from training.train_characteriser import CharacteriserData, train_characteriser
from training.train_detector import train_detector


def fold_folder(config: TrainingConfig, fold: int) -> Path:
    """Checkpoints and logs of the run that keeps ``fold`` for validation."""
    return config.folder / f"fold{fold}"


def train(
    config: TrainingConfig, *, stage: str | None = None, fold: int = 0
) -> tuple[Characteriser | None, Detector | None]:
    """Train one stage or both on all patients outside ``fold``; a finished run returns at once from its checkpoint.

    Started by `torchrun`, it is one of several processes that train together.
    """
    with joined(config) as where:
        if config.data.luna16 is not None:
            return train_luna16(config, fold_folder(config, fold), where, stage=stage, fold=fold)
        if where.processes > 1:
            if where.leads:
                prepare_all(config, fold)
            where.wait_for_all()
        return _train(config, where, stage=stage, fold=fold)


def prepare_all(config: TrainingConfig, fold: int) -> None:
    """Make every cached file that training reads, so that several processes do not write it at once."""
    prepare(config)
    for scan in config.data.training_scans(fold):
        load_background(config, scan)


def _train(
    config: TrainingConfig, where: Placement, *, stage: str | None, fold: int
) -> tuple[Characteriser | None, Detector | None]:
    prepared = prepare(config)
    held_out = set(prepared.split.patients(fold))
    patients = set(prepared.split.fold_of_patient) - held_out
    folder = fold_folder(config, fold)
    characteriser, detector = None, None
    backgrounds = [load_background(config, scan) for scan in config.data.training_scans(fold)]
    bank = prepared.bank.of_patients(patients)
    if stage in (None, "characteriser"):
        inserted = make_inserted_stacks(
            backgrounds, bank, config.crop, config.characteriser.inserted_stacks, config.seed + fold
        )
        data = CharacteriserData.of_patients(prepared.patches, prepared.stacks, inserted, patients)
        characteriser = train_characteriser(config, data, folder, seed=config.seed + fold, where=where)
    if stage in (None, "detector"):
        detector = train_detector(config, backgrounds, bank, folder, seed=config.seed + fold, where=where)
    return characteriser, detector
