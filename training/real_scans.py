"""Scans as they were acquired, with what LUNA16 and LIDC say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.evaluation.reference import Annotation, Luna16Error, Point, read_annotations
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from training.config import TrainingConfig
from training.consensus import group_outlines
from training.inserted_scans import TrueNodule
from training.lidc import LidcScan, read_scans
from training.lidc_agreement import fit_frame, measure
from training.lung_background import Finding, lidc_series_uid

MIN_READERS, MIN_DIAMETER_MM = 2, 3.0
"""Of nodules that LIDC outlines beyond LUNA16's reference."""


@dataclass(frozen=True)
class RealScan:
    """One scan and what is known of it."""

    name: str
    volume: CtVolume
    nodules: tuple[TrueNodule, ...]
    """LUNA16's, then those beyond its reference that `MIN_READERS` readers of LIDC outlined; ``readers`` 0: unknown."""
    irrelevant: tuple[Finding, ...]
    """LUNA16's irrelevant findings, by LUNA16's diameters."""
    seen_in_training: bool
    """Whether the fold's detector was trained in these lungs."""


def load_real_scan(config: TrainingConfig, scan: str, fold: int) -> RealScan:
    """Read a scan below `data.root` and look up its findings.

    Raises
    ------
    app.imaging.errors.ScanError
        As `read_ct`.
    Luna16Error
        As `annotated_nodules`.
    """
    path = config.data.root / scan
    volume, report = read_ct(path)
    series = report.chosen.series_instance_uid or lidc_series_uid(path.stem)
    reference, irrelevant = luna16_rows(config.data.root / "luna16", series)
    (lidc_scan,) = read_scans(series_uids=(series,))
    return RealScan(
        name=path.stem,
        volume=volume,
        nodules=annotated_nodules(lidc_scan, reference, irrelevant),
        irrelevant=tuple(Finding(a.center_lps_mm, 2 * a.hit_radius_mm) for a in irrelevant),
        seen_in_training=scan in config.data.training_scans(fold),
    )


def luna16_rows(folder: Path, series_uid: str) -> tuple[list[Annotation], list[Annotation]]:
    """LUNA16's nodules and irrelevant findings of one series."""
    reference, excluded = (
        [row for row in read_annotations(folder / name) if row.series_uid == series_uid]
        for name in ("annotations.csv", "annotations_excluded.csv")
    )
    return reference, excluded


def annotated_nodules(
    scan: LidcScan, reference: Sequence[Annotation], irrelevant: Sequence[Annotation]
) -> tuple[TrueNodule, ...]:
    """LUNA16's nodules and LIDC's beyond them.

    The database has no origin of the pixels; as in `training.lidc_agreement` it is fitted to the readings that LUNA16
    lists as irrelevant.

    Raises
    ------
    Luna16Error
        If LIDC outlines a nodule but no such reading tells where its pixels lie in the patient.
    """
    grouped = group_outlines(scan)
    measured = [measure(nodule) for nodule in grouped]
    agreed = [
        (ours, nodule.n_outlines)
        for nodule, ours in zip(grouped, measured, strict=True)
        if nodule.n_outlines >= MIN_READERS and ours.diameter_mm >= MIN_DIAMETER_MM
    ]
    if not agreed:
        return tuple(_annotated(row.center_lps_mm, row.diameter_mm, 0) for row in reference)
    frame = fit_frame(measured, [row for row in irrelevant if row.diameter_mm >= 0])
    if frame is None:
        raise Luna16Error(
            f"LIDC outlines {len(agreed)} nodules in series {scan.series_uid}, but annotations_excluded.csv has no "
            "reading of it that tells where they lie; use the published file"
        )
    places = frame.to_lps_mm(np.asarray([ours.center_px_mm for ours, _ in agreed]))
    readers, beyond = [0] * len(reference), []
    for (ours, n_readers), place in zip(agreed, places, strict=True):
        hit = [n for n, row in enumerate(reference) if np.linalg.norm(place - row.center_lps_mm) < row.hit_radius_mm]
        if hit:
            readers[hit[0]] = n_readers
        else:
            x, y, z = (float(v) for v in place)
            beyond.append(_annotated((x, y, z), ours.diameter_mm, n_readers))
    named = [_annotated(row.center_lps_mm, row.diameter_mm, n) for row, n in zip(reference, readers, strict=True)]
    return (*named, *beyond)


def _annotated(center_lps_mm: Point, diameter_mm: float, readers: int) -> TrueNodule:
    return TrueNodule(center_lps_mm, diameter_mm, "annotated", "", float("nan"), readers)
