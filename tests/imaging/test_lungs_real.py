"""The lung mask on the real CTs beside the repository, against LUNA16's reference standard."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from app.imaging.lungs import LungMask, coverage_warnings, segment_lungs
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume

_LIDC = "1.3.6.1.4.1.14519.5.2.1.6279.6001."
SERIES = {
    "LIDC-IDRI-0001.zip": _LIDC + "179049373636438705059720603192",
    "LIDC-IDRI-0002.mha": _LIDC + "619372068417051974713149104919",
    "LIDC-IDRI-0028.mha": _LIDC + "203741923654363010377298352671",
    "LIDC-IDRI-0306.mha": _LIDC + "269689294231892620436462818860",
}
Scan = tuple[CtVolume, LungMask, str]


@pytest.fixture(scope="module", params=list(SERIES))
def scan(shared_data: Path, request: pytest.FixtureRequest) -> Scan:
    volume, _ = read_ct(shared_data / "ct" / request.param)
    return volume, segment_lungs(volume), SERIES[request.param]


def annotated(folder: Path, name: str, series_uid: str) -> list[tuple[np.ndarray, float]]:
    """Centre in LPS mm and diameter in mm of each finding."""
    with (folder / "luna16" / name).open() as file:
        rows = [row for row in csv.DictReader(file) if row["seriesuid"] == series_uid]
    return [(np.array([float(row[f"coord{a}"]) for a in "XYZ"]), float(row["diameter_mm"])) for row in rows]


def test_lungs_look_like_lungs(scan: Scan) -> None:
    volume, lungs, _ = scan
    right_ml, left_ml = lungs.volume_ml("right"), lungs.volume_ml("left")
    assert 1500 < left_ml < right_ml < 3500
    right, left = (lungs.grid.to_patient(np.argwhere(lungs.labels == label)) for label in (1, 2))
    assert right[:, 0].mean() < left[:, 0].mean() - 100
    assert np.quantile(right[:, 0], 0.99) < np.quantile(left[:, 0], 0.05)
    assert coverage_warnings(lungs, volume) == ()


def test_nothing_but_lung_and_what_lies_in_it(scan: Scan) -> None:
    volume, lungs, _ = scan
    held = volume.hu[lungs.widened_on(volume.grid, 0.0)]
    assert np.mean(held < -500) > 0.85
    assert np.mean(held < -980) < 0.1, "air of the trachea or of the room"


def test_nodules_are_inside_whole(scan: Scan, shared_data: Path) -> None:
    volume, lungs, series_uid = scan
    widened = lungs.widened_on(volume.grid, 3.0)
    for center_lps_mm, diameter_mm in annotated(shared_data, "annotations.csv", series_uid):
        assert lungs.side_at(center_lps_mm) is not None
        offsets = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 25)] * 3), axis=-1).reshape(-1, 3)
        ball_lps_mm = center_lps_mm + diameter_mm * offsets[np.linalg.norm(offsets, axis=1) <= 0.5]
        index = np.floor(volume.grid.to_index(ball_lps_mm) + 0.5).astype(int)
        assert widened[tuple(index.T)].all()


def test_annotated_findings_are_inside(scan: Scan, shared_data: Path) -> None:
    _, lungs, series_uid = scan
    findings = annotated(shared_data, "annotations_excluded.csv", series_uid)
    sides = [lungs.side_at(center) for center, _ in findings]
    assert len(findings) > 20
    assert np.mean([side is not None for side in sides]) > 0.98
