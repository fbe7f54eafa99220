"""Everything that training reads, made once through `app.imaging` and cached under the digest of what it depends on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from app.imaging.volume import Grid
from training.config import TrainingConfig
from training.crops import CandidatePatches, load_candidate_patches
from training.lung_background import Background, NoiseModel, prepare_background
from training.nodule_bank import NoduleBank, load_nodule_bank
from training.nodule_stacks import NoduleStacks, load_nodule_stacks
from training.splits import Split, read_split, split_patients, write_split

T = TypeVar("T")

CACHE_FORMAT = 3
"""Raise it when what the cached arrays hold changes in a way that no configuration value shows."""


@dataclass(frozen=True)
class Prepared:
    """What both stages learn from."""

    split: Split
    patches: CandidatePatches
    stacks: NoduleStacks
    bank: NoduleBank


def cache_folder(config: TrainingConfig) -> Path:
    """Where the cache of this preprocessing lies; configurations that prepare alike share it."""
    return config.runs / "cache" / f"{CACHE_FORMAT}-{config.digest('preprocessing', 'crop')[:16]}"


def prepare(config: TrainingConfig) -> Prepared:
    """Read the cache, making what is missing.

    Raises
    ------
    FileNotFoundError
        If `data.root` does not hold the files that its README names.
    """
    folder = cache_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    root = config.data.root
    patches = _cached(
        folder / "patches.npz",
        CandidatePatches,
        lambda: load_candidate_patches(
            root / "luna16_axial_patches.npz", root / "luna16" / "annotations.csv", config.crop
        ),
    )
    stacks = _cached(folder / "stacks.npz", NoduleStacks, lambda: load_nodule_stacks(root, config.crop))
    bank = load_nodule_bank(root, cache=folder / "bank.npz", exclude=config.data.held_out_patients)
    return Prepared(_split(config, patches, stacks), patches, stacks, bank)


def load_background(config: TrainingConfig, scan: str) -> Background:
    """One scan below `data.root` made ready for insertion."""
    path = config.data.root / scan
    return _cached(
        cache_folder(config) / f"background-{path.stem}.npz",
        Background,
        lambda: prepare_background(path, config.data.root, config.preprocessing),
    )


def _split(config: TrainingConfig, patches: CandidatePatches, stacks: NoduleStacks) -> Split:
    """The run's split manifest, written at first use and read ever after."""
    path = config.folder / "split.json"
    if path.exists():
        return read_split(path)
    weights: dict[str, float] = {}
    for patient in [*patches.patient_id[patches.is_nodule], *stacks.patient_id]:
        weights[str(patient)] = weights.get(str(patient), 0.0) + 1.0
    everyone = {str(p) for p in patches.patient_id} | {str(p) for p in stacks.patient_id}
    split = split_patients(everyone - set(config.data.held_out_patients), config.data.folds, config.seed, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_split(path, split)
    return split


def _cached(path: Path, kind: type[T], make: Callable[[], T]) -> T:
    """Read a dataclass of arrays from ``path``; where there is none, make it and store it with one rename."""
    if not path.exists():
        half_written = path.with_suffix(".part.npz")
        np.savez(half_written, allow_pickle=False, **_to_arrays(make()))
        half_written.replace(path)
    with np.load(path) as stored:
        return kind(**_from_arrays(dict(stored)))


def _to_arrays(item: object) -> dict[str, NDArray[Any]]:
    """A dataclass of arrays as flat arrays; a grid and a noise tile are taken apart."""
    arrays: dict[str, NDArray[Any]] = {}
    for field in dataclasses.fields(cast(Any, item)):
        value = getattr(item, field.name)
        if isinstance(value, Grid):
            arrays[f"{field.name}.affine"], arrays[f"{field.name}.shape_zyx"] = (
                value.affine,
                np.asarray(value.shape_zyx),
            )
        elif isinstance(value, NoiseModel):
            arrays[f"{field.name}.tile_hu"] = value.tile_hu
        else:
            arrays[field.name] = np.asarray(value)
    return arrays


def _from_arrays(stored: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The reverse of `_to_arrays`; scalars and name lists come back as plain Python."""
    fields: dict[str, Any] = {}
    for name, value in stored.items():
        if name.endswith(".affine"):
            key = name.removesuffix(".affine")
            z, y, x = (int(n) for n in stored[f"{key}.shape_zyx"])
            fields[key] = Grid((z, y, x), value)
        elif name.endswith(".tile_hu"):
            fields[name.removesuffix(".tile_hu")] = NoiseModel(value)
        elif name == "rating_names":
            fields[name] = tuple(str(n) for n in value)
        elif not name.endswith(".shape_zyx"):
            fields[name] = value.item() if value.ndim == 0 else value
    return fields
