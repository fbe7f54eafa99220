"""Vessel trees run through the lungs, taper, and are painted as thick as they are."""

from __future__ import annotations

import numpy as np
import pytest

from app.imaging.volume import Grid
from app.phantom.anatomy import lung_depth
from app.phantom.noise import correlated_slices
from app.phantom.painting import blur_variance_mm2, paint_tubes
from app.phantom.vessels import Tubes, joined, lung_vessels, random_points_in_lung


def straight_tube(radius_mm: float, direction: tuple[float, float, float], length_mm: float = 60.0) -> Tubes:
    """Through (0, 0, 0), samples 1 mm apart."""
    along = np.asarray(direction) / np.linalg.norm(direction)
    places = np.arange(-length_mm / 2, length_mm / 2 + 0.5)
    return Tubes(places[:, None] * along, np.tile(along, (len(places), 1)), np.full(len(places), radius_mm))


def test_trees_are_the_same_for_the_same_seed() -> None:
    first, second = (lung_vessels(np.random.default_rng(7))[0] for _ in range(2))

    assert np.array_equal(first.points_mm, second.points_mm)


def test_most_of_the_vessels_lie_in_the_lungs_and_the_thick_ones_at_the_hilum() -> None:
    vessels, airways, lumens = lung_vessels(np.random.default_rng(0))
    depth = lung_depth(vessels.points_mm)

    assert np.mean(depth > 0) > 0.85
    thick = vessels.radii_mm > 3.0
    assert np.abs(vessels.points_mm[thick][:, 0]).max() < np.abs(vessels.points_mm[~thick][:, 0]).max() - 20.0
    assert vessels.radii_mm.min() > 0.1
    assert vessels.radii_mm.max() < 12.0
    assert np.allclose(np.linalg.norm(vessels.tangents, axis=1), 1.0, atol=1e-6)
    assert (airways.radii_mm > lumens.radii_mm).all()


def test_random_points_keep_their_depth_and_side() -> None:
    points = random_points_in_lung(np.random.default_rng(0), 50, -1.0, 6.0)

    assert points.shape == (50, 3)
    assert (lung_depth(points) > 6.0).all()
    assert (points[:, 0] < 0).all()


@pytest.mark.parametrize("direction", [(0, 0, 1), (1, 0, 0), (1, 2, 3)])
@pytest.mark.parametrize("radius", [0.5, 1.5, 5.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7)])
def test_a_painted_tube_fills_its_cross_section(
    direction: tuple[float, float, float], radius: float, spacing: tuple[float, float, float]
) -> None:
    shape = tuple(int(30.0 / s) | 1 for s in spacing)
    tube, volumes = straight_tube(radius, direction), []
    for part in np.arange(5) / 5.0:
        # Wherever the tube lies among the voxels: the mean over a few places within one of them.
        shift = part * np.array(spacing[::-1])
        corner = [-(n - 1) / 2 * s for n, s in zip(shape[::-1], spacing[::-1], strict=True)]
        grid = Grid.from_spacing(shape, spacing, shift + corner)
        filled = np.zeros(shape, np.uint8)
        paint_tubes(tube, grid, filled)
        # Only what lies within 8 mm along the tube, so that its ends do not matter.
        points = grid.to_patient(np.indices(shape).reshape(3, -1).T)
        along = np.abs(points @ (np.asarray(direction) / np.linalg.norm(direction)))
        volumes.append(filled.reshape(-1)[along < 8.0].sum() / 255.0 * grid.voxel_volume_mm3)

    assert np.mean(volumes) == pytest.approx(np.pi * radius**2 * 16.0, rel=0.15)


def test_painting_a_tube_twice_changes_nothing() -> None:
    grid = Grid.from_spacing((9, 9, 9), 1.0, (-4.0, -4.0, -4.0))
    once, twice = np.zeros((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint8)
    tube = straight_tube(1.0, (0, 1, 0))

    paint_tubes(tube, grid, once)
    paint_tubes(joined(tube, tube), grid, twice)

    assert once.any()
    assert np.array_equal(once, twice)


def test_a_tube_beside_the_grid_paints_only_its_edge() -> None:
    grid = Grid.from_spacing((5, 5, 5), 1.0, (0.0, 3.0, -2.0))
    filled = np.zeros((5, 5, 5), np.uint8)

    paint_tubes(straight_tube(3.0, (0, 0, 1)), grid, filled)

    assert filled[:, 0, 0].all()
    assert not filled[:, 4].any()


def test_blur_is_that_of_point_spread_and_voxel() -> None:
    variance = blur_variance_mm2(Grid.from_spacing((1, 1, 1), (3.0, 1.0, 2.0)))

    assert np.allclose(np.diag(variance) - np.diag(variance).min(), [3.0 / 12.0, 0.0, 8.0 / 12.0])


def test_noise_has_unit_variance_and_is_correlated_in_plane_and_along_z() -> None:
    noise = np.stack(list(correlated_slices(np.random.default_rng(0), (6, 96, 80), (0.7, 0.7))))

    assert noise.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1] > 0.2
    assert 0.2 < np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1] < 0.9
    assert abs(np.corrcoef(noise[0].ravel(), noise[4].ravel())[0, 1]) < 0.05
