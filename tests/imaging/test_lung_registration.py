"""Registration of two scans of one phantom against the motion that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.alignment import Mapping
from app.imaging.alignment_check import check_alignment, why_unusable
from app.imaging.lung_registration import register_lungs
from app.imaging.volume import Grid
from app.phantom.chest import CENTER_MM
from tests.imaging.dicom_worlds import rotation
from tests.phantom_pairs import STILL, PhantomPair, phantom_grid, phantom_pair

COARSE, MM = (86, 100, 126), (3.4, 3.0, 3.0)
UPRIGHT = np.eye(3)[:, ::-1]


def aligned(pair: PhantomPair):
    """The alignment, and its error in mm at points all over the lungs that both scans show."""
    current, prior = pair.chests()
    alignment = check_alignment(current, prior, register_lungs(current, prior))
    points = current.lungs.grid.to_patient(np.argwhere(current.lungs.labels > 0)[::29])
    truth = pair.motion(points)
    shown = pair.prior.grid.contains_index(pair.prior.grid.to_index(truth))
    error = np.linalg.norm(alignment.mapping.to_prior(points) - truth, axis=1)[shown]
    return alignment, error, np.linalg.norm(truth - points, axis=1)


PLAIN = {"current_grid": phantom_grid(COARSE, MM), "prior_grid": phantom_grid(COARSE, MM)}
GRIDS = {
    "oblique current, flipped prior with thick slices": {
        "current_grid": phantom_grid((76, 100, 115), (4.0, 3.5, 3.5), rotation((1.0, 0.3, 0.2), 9.0) @ UPRIGHT),
        "prior_grid": phantom_grid((126, 60, 100), (3.0, 5.0, 3.0), (UPRIGHT * (-1.0, 1.0, -1.0))[:, [2, 0, 1]]),
    },
    "prior of the upper lungs": {
        "current_grid": phantom_grid(COARSE, MM),
        "prior_grid": phantom_grid((42, 100, 126), MM, None, np.add(CENTER_MM, (0, 0, 70))),
    },
}


@pytest.mark.parametrize(("grids", "covered"), list(zip(GRIDS.values(), (1.0, 0.55), strict=True)), ids=GRIDS)
def test_points_are_found_again(grids, covered):
    alignment, error, moved = aligned(phantom_pair(3, **grids))
    assert np.median(moved) > 10.0
    assert np.median(error) < 2.0
    assert np.quantile(error, 0.9) < 4.0
    assert why_unusable(alignment.quality) is None
    assert alignment.quality.covered_share == pytest.approx(covered, abs=0.06)
    # What is said of the error may not be far better than what it is.
    assert alignment.quality.error_mm > 0.5 * np.quantile(error, 0.9)


def test_the_same_scan_lies_on_itself_and_the_same_scans_give_the_same_map():
    current, prior = phantom_pair(3, motion=STILL, **PLAIN).chests()
    one, two = (register_lungs(current, prior, threads=threads) for threads in (1, 2))
    assert np.array_equal(one.displacement_lps_mm, two.displacement_lps_mm)
    assert np.array_equal(one.affine, two.affine)
    alignment = check_alignment(current, prior, one)
    assert alignment.quality.error_mm < 2.0  # noise of two scans on voxels of 3 mm
    assert alignment.quality.agreement > 0.9
    assert alignment.quality.covered_share == 1.0


def test_scans_of_two_patients_are_refused():
    """Their lungs cover each other all the same: that alone says nothing."""
    current, _ = phantom_pair(3, **PLAIN).chests()
    _, prior = phantom_pair(4, **PLAIN).chests()
    quality = check_alignment(current, prior, register_lungs(current, prior)).quality
    assert quality.lung_overlap > 0.9
    refusal = why_unusable(quality)
    assert refusal.code == "registration_failed"
    assert refusal.values["figure"] == "agreement"


def test_scans_of_other_parts_are_refused():
    parts = [phantom_grid((42, 100, 126), MM, None, np.add(CENTER_MM, (0, 0, height))) for height in (72, -72)]
    current, prior = phantom_pair(3, current_grid=parts[0], prior_grid=parts[1]).chests()
    assert why_unusable(check_alignment(current, prior, register_lungs(current, prior)).quality) is not None


@given(st.integers(0, 2**31), st.floats(0.0, 8.0))
def test_there_and_back(seed, amplitude_mm):
    """For any smooth displacement that does not fold, on any affine map."""
    rng = np.random.default_rng(seed)
    grid = Grid.from_spacing((12, 12, 12), (20.0, 20.0, 20.0), (-110.0, -110.0, -110.0))
    points = grid.to_patient(np.argwhere(np.ones(grid.shape_zyx, bool)))
    waves = np.stack([np.sin(points @ rng.normal(0, 0.012, 3) + rng.uniform(0, 6)) for _ in range(3)], axis=-1)
    field = (amplitude_mm * waves).reshape(*grid.shape_zyx, 3).astype(np.float32)
    affine = np.eye(4)
    affine[:3] += np.concatenate([rng.normal(0, 0.05, (3, 3)), rng.normal(0, 30, (3, 1))], axis=1)
    mapping = Mapping(affine, field, grid)
    places = rng.uniform(-140, 140, (50, 3))
    assert mapping.to_current(mapping.to_prior(places)) == pytest.approx(places, abs=0.1)
    assert mapping.to_prior(mapping.to_current(places)) == pytest.approx(places, abs=0.1)
