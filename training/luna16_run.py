"""Prepare and train on the whole of LUNA16: which scans a fold learns from, chooses on and is judged by.

Fold k is judged on subset k, as LUNA16's rules have it. Every scan of a patient with a scan in subset k is kept out of
its training, and so is a small share of the other patients, on whom calibration and operating points are chosen.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from app.evaluation.reference import Luna16Error
from training.characteriser import Characteriser
from training.config import TrainingConfig
from training.detector import Detector
from training.lidc import LidcScan, patient_of_series, read_scans
from training.luna16 import Luna16Case, find_cases
from training.luna16_crops import Luna16Crops
from training.luna16_scans import cache_scan, facts_path, load_scan, read_image
from training.luna16_second_stage import SecondStageData, bank_of, cache_crops, crops_path, load_crops
from training.prepare import cache_folder
from training.processes import Placement
from training.splits import Split, write_split
from training.train_characteriser import CharacteriserData, train_characteriser
from training.train_detector import train_on_crops

NAMED_FAULTS = 5
"""Scans that could not be prepared are named up to this many."""


@dataclass(frozen=True)
class Parts:
    """The scans of one fold; no patient is in two parts.

    Those that `data.held_out_patients` names are neither learnt from nor chosen on, but judged as any other.
    """

    learn: tuple[Luna16Case, ...]
    choose: tuple[Luna16Case, ...]
    judge: tuple[Luna16Case, ...]


def luna16_cases(config: TrainingConfig) -> tuple[Luna16Case, ...]:
    """All scans of the configured subsets.

    Raises
    ------
    Luna16Error
        If `data.luna16` is not what LUNA16 publishes; the message says what is missing.
    """
    if config.data.luna16 is None:
        raise Luna16Error("data.luna16 is not set: name the folder that holds subset0 to subset9")
    return find_cases(config.data.luna16, patient_of_series(config.luna16.lidc_database), config.luna16.folds)


def parts_of_fold(config: TrainingConfig, cases: Sequence[Luna16Case], fold: int) -> Parts:
    """Who is learnt from, chosen on and judged by when subset ``fold`` is held out; the same for the same seed.

    Raises
    ------
    Luna16Error
        If the subset is not configured or too few patients are left.
    """
    if fold not in config.luna16.folds:
        raise Luna16Error(f"subset {fold} is not in luna16.folds {list(config.luna16.folds)}")
    judge = tuple(case for case in cases if case.fold == fold)
    kept_out = {case.patient_id for case in judge} | set(config.data.held_out_patients)
    rest = [case for case in cases if case.patient_id not in kept_out]
    with_nodules = {case.patient_id for case in rest if case.nodules}
    rng = np.random.default_rng((config.seed, fold))
    choosing: set[str] = set()
    for group in (with_nodules, {case.patient_id for case in rest} - with_nodules):
        count = math.ceil(config.luna16.validation_share * len(group))
        choosing |= set(rng.permutation(sorted(group))[:count].tolist())
    learn = tuple(case for case in rest if case.patient_id not in choosing)
    if not any(case.nodules for case in learn):
        raise Luna16Error(f"without subset {fold} and the scans to choose on no nodule is left; name more subsets")
    return Parts(learn, tuple(case for case in rest if case.patient_id in choosing), judge)


def prepare_luna16(config: TrainingConfig, where: Placement) -> tuple[Luna16Case, ...]:
    """Cache every scan that is not cached yet, each process its share, and write the split; gives all scans.

    Raises
    ------
    Luna16Error
        If scans cannot be used, after all the others have been cached.
    """
    cases = luna16_cases(config)
    missing = [case for case in cases if not _is_cached(config, case)]
    outlines = _outlines(config, missing)
    where.wait_for_all()  # all count what is missing before any of it is made
    faults = []
    mine = missing[where.rank :: where.processes]
    made = _cached(config, [(case, outlines[case.series_uid]) for case in mine])
    for fault in tqdm(made, total=len(mine), desc="prepare", mininterval=5, disable=not where.leads):
        faults += [fault] if fault else []
    if faults:
        named = "; ".join(faults[:NAMED_FAULTS])
        raise Luna16Error(f"{len(faults)} of {len(cases)} scans cannot be used: {named}")
    if where.leads:
        config.folder.mkdir(parents=True, exist_ok=True)
        write_split(config.folder / "split.json", official_split(cases))
    where.wait_for_all()
    return cases


def official_split(cases: Sequence[Luna16Case]) -> Split:
    """The subsets as a manifest by patient; one with scans in two is listed under the first and trained in neither."""
    folds = sorted({case.fold for case in cases})
    fold_of_patient: dict[str, int] = {}
    for case in sorted(cases, key=lambda case: case.fold):
        fold_of_patient.setdefault(case.patient_id, folds.index(case.fold))
    return Split(fold_of_patient, len(folds), 0, f"LUNA16 subsets {', '.join(map(str, folds))}")


def train_luna16(
    config: TrainingConfig, folder: Path, where: Placement, *, stage: str | None, fold: int
) -> tuple[Characteriser | None, Detector | None]:
    """Train one stage or both on all scans outside subset ``fold``, caching first what is not cached."""
    parts = parts_of_fold(config, prepare_luna16(config, where), fold)
    seed, learnt = config.seed + fold, _digest_of(parts.learn)
    characteriser, detector = None, None
    if stage in (None, "characteriser"):
        data = second_stage_data(config, parts.learn)
        if not len(data.beyond.first_slice):
            raise Luna16Error("LIDC has no outlined nodule in the scans to learn from; name more subsets")
        everyone = {case.patient_id for case in parts.learn}
        characteriser = train_characteriser(
            config,
            CharacteriserData.of_patients(data.patches, data.stacks, data.beyond, everyone),
            folder,
            seed=seed,
            where=where,
            identity=f"{config.digest('characteriser', 'crop', 'luna16', 'seed')}:{learnt}",
        )
    if stage in (None, "detector"):
        detector = train_on_crops(
            config,
            detector_crops(config, parts.learn),
            folder,
            seed=seed,
            where=where,
            identity=f"{config.digest('detector', 'preprocessing', 'luna16', 'seed')}:{learnt}",
        )
    return characteriser, detector


def second_stage_data(config: TrainingConfig, cases: Sequence[Luna16Case]) -> SecondStageData:
    """What the second stage learns from these scans, or is judged by."""
    return load_crops(cases, scans_folder(config), config.luna16.candidates_per_scan)


def detector_crops(config: TrainingConfig, cases: Sequence[Luna16Case]) -> Luna16Crops:
    """What the first stage learns from these scans."""
    scans = tuple(load_scan(case, scans_folder(config)) for case in cases)
    inserted = max(config.luna16.inserted_per_crop) > 0
    return Luna16Crops(
        config, scans, bank_of(second_stage_data(config, cases).stacks, config.crop) if inserted else None
    )


def scans_folder(config: TrainingConfig) -> Path:
    """Where cached scans lie; runs that prepare alike share them."""
    return cache_folder(config) / "luna16"


def _outlines(config: TrainingConfig, cases: Sequence[Luna16Case]) -> dict[str, LidcScan]:
    if not cases:
        return {}
    wanted = {case.series_uid for case in cases}
    return {scan.series_uid: scan for scan in read_scans(config.luna16.lidc_database, wanted)}


def _is_cached(config: TrainingConfig, case: Luna16Case) -> bool:
    folder = scans_folder(config)
    crops = crops_path(folder, case.series_uid, config.luna16.candidates_per_scan)
    return crops.exists() and facts_path(folder, case.series_uid).exists()


def _cached(config: TrainingConfig, items: list[tuple[Luna16Case, LidcScan]]) -> Iterator[str | None]:
    """Cache scans; for each None, or why it could not be."""
    make = partial(_cache_one, config)
    if config.workers == 0 or len(items) < 2:
        yield from map(make, items)
        return
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, items)


def _cache_one(config: TrainingConfig, item: tuple[Luna16Case, LidcScan]) -> str | None:
    case, outlines = item
    folder = scans_folder(config)
    try:
        volume = read_image(case.image_path)
        cache_scan(case, volume, config.preprocessing, folder)
        cache_crops(case, volume, outlines, config.crop, config.luna16.candidates_per_scan, folder)
    except Luna16Error as error:
        return str(error)
    return None


def _digest_of(cases: Sequence[Luna16Case]) -> str:
    """Names what was learnt from wherever the data lie: a run goes on after they were moved, not after they changed."""
    return hashlib.sha256("\n".join(sorted(case.series_uid for case in cases)).encode()).hexdigest()[:16]


def describe(config: TrainingConfig, cases: Sequence[Luna16Case]) -> None:
    """Print what has been prepared."""
    nodules = sum(len(case.nodules) for case in cases)
    voxels = sum(path.stat().st_size for path in scans_folder(config).glob("*.hu.npy"))
    sys.stdout.write(f"{len(cases)} scans, {nodules} nodules; {voxels / 1e9:.1f} GB of voxels in the cache\n")
