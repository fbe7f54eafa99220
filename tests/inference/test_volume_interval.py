"""How sure the volume is."""

import numpy as np
import pytest

from app.imaging.volume import Grid
from app.inference.findings import NoduleMask
from app.inference.measurements import volume_mm3
from app.inference.volume_interval import outline_doubt, volume_interval_mm3, voxel_share


def ball(diameter_mm: float, slice_mm: float = 1.0, edge_mm: float | None = 0.5) -> NoduleMask:
    """A ball whose network is as unsure as ``edge_mm`` along its radius; None: no network."""
    shape = (2 * int(20 / slice_mm) + 1, 61, 61)
    grid = Grid.from_spacing(shape, (slice_mm, 0.7, 0.7))
    points = grid.to_patient(np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3))
    distance = np.linalg.norm(points - grid.to_patient([n // 2 for n in shape]), axis=1).reshape(shape)
    if edge_mm is None:
        return NoduleMask(distance <= diameter_mm / 2, grid)
    probability = 1 / (1 + np.exp((distance - diameter_mm / 2) / edge_mm))
    return NoduleMask(probability >= 0.5, grid, probability)


def ratio(mask: NoduleMask) -> float:
    low, high = volume_interval_mm3(mask)
    assert low < volume_mm3(mask) < high
    assert low * high == pytest.approx(volume_mm3(mask) ** 2)
    return high / low


def test_thick_slices_small_nodules_and_a_soft_outline_make_it_wider():
    usual = ratio(ball(10.0))
    assert ratio(ball(10.0, slice_mm=5.0)) > 1.1 * usual
    assert ratio(ball(5.0)) > 1.1 * usual
    assert ratio(ball(10.0, edge_mm=1.5)) > 1.1 * usual
    assert ratio(ball(20.0)) < usual / 1.1


def test_without_probabilities_only_the_voxels_count():
    assert outline_doubt(ball(10.0, edge_mm=None)) == 0.0
    assert 1.0 < ratio(ball(10.0, edge_mm=None)) < ratio(ball(10.0))


def test_what_is_probable_far_away_is_no_doubt_of_this_outline():
    mask = ball(10.0)
    probability = mask.probability.copy()
    probability[:, :8, :8] = 0.9
    assert outline_doubt(NoduleMask(mask.voxels, mask.grid, probability)) == outline_doubt(mask)


def test_the_share_of_the_voxels_is_half_an_edge_along_the_surface():
    """Of a sphere of radius r, a shell of half the voxel's edge e holds 3 (e / 2) / r."""
    mask = ball(12.0, slice_mm=0.7)
    radius = np.cbrt(volume_mm3(mask) * 3 / (4 * np.pi))
    assert voxel_share(mask) == pytest.approx(3 * 0.35 / radius)
