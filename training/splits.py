"""Leak-free splits: every patient in exactly one fold, written to a manifest that ships with the model.

The unit is the patient, never the series, the nodule or the patch: the LUNA16 patches, the LIDC nodule stacks and the
CTs share patients. A manifest holds patient -> fold, how it was made, and a sha256 over both; reading recomputes it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FORMAT = "lungnodule-split/1"


class SplitError(ValueError):
    """A split that leaks, is damaged, or does not cover the data."""


@dataclass(frozen=True)
class Split:
    """Patient -> fold.

    Raises
    ------
    SplitError
        If a fold is out of range or empty.
    """

    fold_of_patient: Mapping[str, int]
    n_folds: int
    seed: int
    method: str

    def __post_init__(self) -> None:
        present = set(self.fold_of_patient.values())
        if present != set(range(self.n_folds)):
            raise SplitError(f"folds 0 to {self.n_folds - 1} must all have patients, found {sorted(present)}")

    @property
    def sha256(self) -> str:
        """Digest of the assignment and of how it was made; the same split has the same digest everywhere."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def patients(self, fold: int) -> tuple[str, ...]:
        """Patients of one fold, sorted."""
        return tuple(sorted(patient for patient, its_fold in self.fold_of_patient.items() if its_fold == fold))

    def held_out(self, fold: int, patient_of_item: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(n,) True for the items (patches, nodules, scans) whose patient is in the fold; the others are for training.

        Raises
        ------
        SplitError
            If a patient is not in the split: an item must not fall on a side by accident.
        """
        unknown = sorted({patient for patient in patient_of_item if patient not in self.fold_of_patient})
        if unknown:
            raise SplitError(f"{len(unknown)} patients of the data are not in the split, first {unknown[0]}")
        return np.array([self.fold_of_patient[patient] == fold for patient in patient_of_item], dtype=np.bool_)

    def content(self) -> dict[str, object]:
        """What the manifest holds besides its sha256."""
        return {
            "format": FORMAT,
            "method": self.method,
            "n_folds": self.n_folds,
            "seed": self.seed,
            "fold_of_patient": dict(sorted(self.fold_of_patient.items())),
        }


def split_patients(
    patients: Iterable[str], n_folds: int, seed: int, weights: Mapping[str, float] | None = None
) -> Split:
    """Deal patients to folds of equal size, or of equal total weight (nodules, patches) where weights are given.

    Patients with more weight are dealt first, each to the lightest fold; equal weights and equal folds are ordered at
    random by the seed. The order of ``patients`` and repetitions in it do not matter.
    """
    names = sorted(set(patients))
    if len(names) < n_folds:
        raise SplitError(f"{len(names)} patients cannot fill {n_folds} folds")
    generator = np.random.default_rng(seed)
    shuffled = [names[index] for index in generator.permutation(len(names))]
    heavy_first = sorted(shuffled, key=lambda name: -(weights or {}).get(name, 0.0))
    fold_order = generator.permutation(n_folds).tolist()
    load = dict.fromkeys(fold_order, (0.0, 0))
    fold_of_patient: dict[str, int] = {}
    for name in heavy_first:
        fold = min(fold_order, key=load.__getitem__)
        weight, count = load[fold]
        load[fold] = (weight + (weights or {}).get(name, 0.0), count + 1)
        fold_of_patient[name] = fold
    return Split(fold_of_patient, n_folds, seed, "by patient, equal weight" if weights else "by patient, equal size")


def official_luna16_split(fold_of_series: Mapping[str, int], patient_of_series: Mapping[str, str]) -> Split:
    """The ten official folds as a split by patient.

    Raises
    ------
    SplitError
        If a patient's series lie in two folds: then the official folds leak and must not be used as they are.
    """
    folds_of_patient: dict[str, set[int]] = defaultdict(set)
    for series_uid, fold in fold_of_series.items():
        folds_of_patient[patient_of_series[series_uid]].add(fold)
    torn = sorted(patient for patient, folds in folds_of_patient.items() if len(folds) > 1)
    if torn:
        raise SplitError(
            f"{len(torn)} patients have series in more than one official fold, first {torn[0]}; "
            "move their series into one fold or make a split with split_patients"
        )
    fold_of_patient = {patient: min(folds) for patient, folds in folds_of_patient.items()}
    return Split(fold_of_patient, max(fold_of_patient.values()) + 1, 0, "LUNA16 subsets")


def write_split(path: Path, split: Split) -> None:
    """Write the manifest: sorted, indented, ending in its sha256."""
    text = json.dumps({**split.content(), "sha256": split.sha256}, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")


def read_split(path: Path) -> Split:
    """Read a manifest back.

    Raises
    ------
    SplitError
        If it is not a split manifest, or its sha256 is not that of its content.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        split = Split(
            {str(patient): int(fold) for patient, fold in content["fold_of_patient"].items()},
            int(content["n_folds"]),
            int(content["seed"]),
            str(content["method"]),
        )
        recorded = content["sha256"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise SplitError(f"{path.name} is not a split manifest: {type(error).__name__}") from error
    if content.get("format") != FORMAT or recorded != split.sha256:
        raise SplitError(f"{path.name} was changed after it was written: sha256 {recorded}, content {split.sha256}")
    return split


def assert_no_leak(training_patients: Iterable[str], held_out_patients: Iterable[str]) -> None:
    """Raise SplitError where a patient is on both sides."""
    shared = sorted(set(training_patients) & set(held_out_patients))
    if shared:
        raise SplitError(f"{len(shared)} patients are in training and held out, first {shared[0]}")
