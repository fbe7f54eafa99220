"""LUNA16's reference standard as it is published: the series that count, their nodules and irrelevant findings.

World coordinates are LPS millimetres, as ITK reads them from the ``.mhd``.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Point = tuple[float, float, float]

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
class Reference:
    """The reference standard of one evaluation: the scans counted, their nodules and irrelevant findings."""

    series_uids: tuple[str, ...]
    nodules: Mapping[str, tuple[Annotation, ...]]
    irrelevant: Mapping[str, tuple[Annotation, ...]]

    @property
    def n_nodules(self) -> int:
        """Nodules in the scans that are counted; the denominator of sensitivity."""
        return sum(len(self.nodules.get(uid, ())) for uid in self.series_uids)


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
        Annotation(row["seriesuid"].strip(), center_of(row), float(row["diameter_mm"]))
        for row in rows_of(path, ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"))
    )


def read_reference(annotations_csv: Path, excluded_csv: Path | None, seriesuids_csv: Path) -> Reference:
    """The reference standard from its three files; findings in series that are not counted are left out."""
    uids = read_series_uids(seriesuids_csv)
    counted = set(uids)
    excluded = () if excluded_csv is None else read_annotations(excluded_csv)
    return Reference(
        series_uids=uids,
        nodules=_grouped(item for item in read_annotations(annotations_csv) if item.series_uid in counted),
        irrelevant=_grouped(item for item in excluded if item.series_uid in counted),
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


def _grouped(items: Iterable[Annotation]) -> dict[str, tuple[Annotation, ...]]:
    grouped: dict[str, list[Annotation]] = defaultdict(list)
    for item in items:
        grouped[item.series_uid].append(item)
    return {uid: tuple(found) for uid, found in grouped.items()}


def rows_of(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Rows of a published table by column name, each number but in the first column checked."""
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


def center_of(row: Mapping[str, str]) -> Point:
    """Columns coordX, coordY, coordZ."""
    return float(row["coordX"]), float(row["coordY"]), float(row["coordZ"])
