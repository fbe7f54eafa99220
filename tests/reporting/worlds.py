"""A phantom scan on disk with findings at known places: what the pipeline would say, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.imaging.acceptance import Notice
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume, Grid
from app.inference import measurements
from app.inference.densities import densities, section
from app.inference.findings import Findings, Location, ModelIdentity, Nodule, NoduleMask, OperatingPoint
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec
from app.reporting.assessment import assess_findings
from app.reporting.material import Report
from app.reporting.originals import Originals

MADE_AT = datetime(2026, 3, 4, 5, 6, 7, 89, UTC)
SPACING_MM = 0.8
# Turned about all three axes: what is right only for straight scans shows.
TURN_X, TURN_Z = np.radians(12), np.radians(8)
OBLIQUE = np.array([[np.cos(TURN_Z), -np.sin(TURN_Z), 0], [np.sin(TURN_Z), np.cos(TURN_Z), 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, np.cos(TURN_X), -np.sin(TURN_X)], [0, np.sin(TURN_X), np.cos(TURN_X)]]
)


@dataclass(frozen=True)
class Scan:
    """Files and findings."""

    folder: Path
    findings: Findings

    @property
    def report(self) -> Report:
        return Report(self.findings, MADE_AT, assess_findings(self.findings))

    @property
    def originals(self) -> Originals:
        return Originals(self.folder, self.findings)


def phantom_scan(folder: Path, *, diameters_mm: Sequence[float] = (14.0, 9.0), **written: Any) -> Scan:
    """Write an oblique phantom as DICOM, read it back, and find its nodules by the truth."""
    specs = [NoduleSpec(diameter, "solid", "smooth", "free") for diameter in (14.0, 9.0)]
    phantom = phantom_ct(
        shape_zyx=(48, 88, 80), spacing_zyx_mm=(5.0, 3.5, 4.0), direction_lps_zyx=OBLIQUE[:, ::-1], nodules=specs
    )
    write_dicom_series(phantom.volume, folder, **written)
    return scan_of(folder, [(n.center_lps_mm, n.diameter_mm) for n in phantom.nodules[: len(diameters_mm)]])


def scan_of(source: Path, spheres: Sequence[tuple[Sequence[float], float]]) -> Scan:
    """Findings of a scan on disk: one round nodule for each centre (LPS mm) and diameter."""
    volume, acceptance = read_ct(source)
    nodules = tuple(
        nodule_of(f"nodule-{number}", volume, center, diameter_mm)
        for number, (center, diameter_mm) in enumerate(spheres, start=1)
    )
    return Scan(
        source,
        Findings(
            nodules=nodules,
            acceptance=acceptance,
            identity=volume.identity,
            grid=volume.grid,
            model=ModelIdentity("truth", "1.0.0", "ab" * 32),
            execution_provider="CPUExecutionProvider",
            operating_point=OperatingPoint("balanced", 0.4),
            malignancy_meaning="Rated 4 or 5 by readers.",
            timings_s={"total": 1.0},
            warnings=(Notice("partial_coverage", "The lungs are cut off."),),
        ),
    )


def nodule_of(identifier: str, volume: CtVolume, center_lps_mm: Sequence[float], diameter_mm: float) -> Nodule:
    mask = sphere(center_lps_mm, diameter_mm)
    axes = measurements.axes_mm(mask)
    return Nodule(
        id=identifier, probability=0.9, malignancy_probability=0.25, label="benign", diameter_mm=axes.mean_mm,
        long_axis_mm=axes.long_mm, short_axis_mm=axes.short_mm, volume_mm3=measurements.volume_mm3(mask),
        center_lps_mm=measurements.center_lps_mm(mask), box_index_zyx=measurements.box_index_zyx(mask, volume.grid),
        box_lps_mm=measurements.box_lps_mm(mask), slices=measurements.slice_boxes(mask, volume), side="left",
        mean_hu=densities(section(mask, volume)).mean_hu, mask=mask, kind="solid",
        location=Location(lobe="upper", lobe_confidence=0.8),
    )  # fmt: skip


def sphere(center_lps_mm: Sequence[float], diameter_mm: float) -> NoduleMask:
    """A ball on a grid of its own, straight in the patient whatever the scan is."""
    side = 2 * int(np.ceil(diameter_mm / 2 / SPACING_MM)) + 3
    half = (side - 1) / 2 * SPACING_MM
    grid = Grid.from_spacing((side,) * 3, (SPACING_MM,) * 3, np.asarray(center_lps_mm) - half)
    places = grid.to_patient(np.argwhere(np.ones((side,) * 3, np.bool_))) - np.asarray(center_lps_mm)
    return NoduleMask((np.linalg.norm(places, axis=1) <= diameter_mm / 2).reshape((side,) * 3), grid)
