"""The scans of a folder in LUNA16's layout, or of any folder with the same three tables.

A scan is found by its series UID: ``<uid>.mhd`` (with ``.raw`` or ``.zraw``), ``<uid>.mha``, ``<uid>.zip`` or a DICOM
folder ``<uid>/``, at any depth. Where files are named otherwise, ``scans.csv`` (seriesuid,path) says which is which.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.evaluation.reference import Luna16Error, Reference, published_file, read_reference

_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What may become the name of a file."""
_SUFFIXES = (".mhd", ".mha", ".zip")
_MASKS = "seg-lungs-LUNA16"


@dataclass(frozen=True)
class EvaluationSet:
    """What is evaluated on.

    Parameters
    ----------
    reference
        The scans that count, with their nodules and irrelevant findings.
    paths
        By series, the files that `app.imaging.reading.read_ct` takes.
    listed
        Series in ``seriesuids.csv``, of which ``reference`` may be those that are here.
    """

    reference: Reference
    paths: Mapping[str, tuple[Path, ...]]
    listed: int


def evaluation_set(root: Path, *, present_only: bool = False) -> EvaluationSet:
    """Read the tables of a folder and find its scans.

    Parameters
    ----------
    root
        Holds ``annotations.csv``, ``annotations_excluded.csv`` and ``seriesuids.csv``, where LUNA16 unpacks them.
    present_only
        Evaluate the scans that are here. Without it a listed scan that is missing is an error: it would count as one
        in which nothing was found.

    Raises
    ------
    Luna16Error
        A table or a scan is missing, a scan is there twice, or a UID cannot name a file.
    """
    reference = read_reference(
        published_file(root, "annotations.csv"),
        published_file(root, "annotations_excluded.csv"),
        published_file(root, "seriesuids.csv"),
    )
    listed = reference.series_uids
    odd = [uid for uid in listed if not _UID.fullmatch(uid)]
    if odd:
        raise Luna16Error(f"seriesuids.csv holds {len(odd)} names with characters that no UID has")
    paths = _paths(root, set(listed))
    missing = [uid for uid in listed if uid not in paths]
    if missing and not present_only:
        raise Luna16Error(
            f"{len(missing)} of {len(listed)} series have no scan in {root}, first {missing[0]}; download them, or "
            "evaluate those that are there (--present-only)"
        )
    here = tuple(uid for uid in listed if uid in paths)
    if not here:
        raise Luna16Error(f"none of the {len(listed)} series has a scan in {root}")
    counted = Reference(
        here,
        {uid: rows for uid, rows in reference.nodules.items() if uid in paths},
        {uid: rows for uid, rows in reference.irrelevant.items() if uid in paths},
    )
    return EvaluationSet(counted, paths, len(listed))


def _paths(root: Path, wanted: set[str]) -> dict[str, tuple[Path, ...]]:
    table = root / "scans.csv"
    found = _from_table(table, root) if table.is_file() else _from_names(root, wanted)
    return {uid: _with_samples(path) for uid, path in found.items() if uid in wanted}


def _from_table(table: Path, root: Path) -> dict[str, Path]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if not {"seriesuid", "path"} <= set(reader.fieldnames or ()):
            raise Luna16Error(f"{table.name} needs the columns seriesuid and path; it has {reader.fieldnames}")
        rows = {(row["seriesuid"] or "").strip(): root / (row["path"] or "").strip() for row in reader}
    absent = [uid for uid, path in rows.items() if not path.exists()]
    if absent:
        raise Luna16Error(f"{table.name} names {len(absent)} files that are not there, first that of {absent[0]}")
    return rows


def _from_names(root: Path, wanted: set[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        uid = path.name if path.is_dir() else path.stem if path.suffix in _SUFFIXES else ""
        if uid not in wanted or _MASKS in path.parts:
            continue
        if uid in found:
            raise Luna16Error(f"series {uid} lies in two places of {root}; remove one copy")
        found[uid] = path
    return found


def _with_samples(path: Path) -> tuple[Path, ...]:
    samples = [path.with_suffix(suffix) for suffix in (".raw", ".zraw")] if path.suffix == ".mhd" else []
    return (path, *(each for each in samples if each.exists()))
