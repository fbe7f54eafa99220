"""What a lung mask answers: its box, its widening on other grids, the side of a point."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.imaging.lungs import LEFT, RIGHT, LungMask
from app.imaging.volume import Grid

ROTATION = np.linalg.qr(np.array([[0.1, 0.3, 1.0], [-0.2, 1.0, -0.3], [1.0, 0.2, 0.1]]))[0]
OBLIQUE = Grid.from_spacing((9, 10, 11), (2.5, 2.8, 3.1), (-30, 12, 400), ROTATION)


def mask_on(grid: Grid, seed: int = 0) -> LungMask:
    labels = np.zeros(grid.shape_zyx, np.uint8)
    labels[2:7, 3:8, 1:4], labels[2:7, 3:6, 6:10] = RIGHT, LEFT
    labels[np.random.default_rng(seed).random(labels.shape) < 0.1] = 0
    return LungMask(labels, grid)


def centers(grid: Grid) -> np.ndarray:
    return grid.to_patient(np.argwhere(np.ones(grid.shape_zyx, bool)))


@st.composite
def other_grids(draw: st.DrawFn) -> Grid:
    """Grids along the axes of OBLIQUE, in any order and direction, anywhere about it."""
    order = draw(st.permutations(range(3)))
    signs = np.array(draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)))
    spacing = np.array(draw(st.tuples(*[st.floats(0.6, 5)] * 3)))
    start = draw(st.tuples(*[st.floats(-6, 16)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE.direction_lps_zyx[:, list(order)] * signs * spacing
    affine[:3, 3] = OBLIQUE.to_patient(start)
    return Grid(draw(st.tuples(*[st.integers(1, 14)] * 3)), affine)


@settings(deadline=None, max_examples=60)
@given(other_grids(), st.sampled_from([0.0, 3.3, 6.1]))
def test_widened_on_any_grid_along_the_axes(grid: Grid, margin_mm: float) -> None:
    lungs = mask_on(OBLIQUE)
    widened = lungs.widened_on(grid, margin_mm)
    assert widened.shape == grid.shape_zyx
    assert widened.dtype == np.bool_
    # Each point belongs to the coarse voxel around it; that voxel's centre is compared with the lungs'.
    nearest = OBLIQUE.to_patient(np.floor(OBLIQUE.to_index(centers(grid)) + 0.5))
    held = OBLIQUE.to_patient(np.argwhere(lungs.labels))
    distance = np.linalg.norm(nearest[:, None] - held[None], axis=2).min(axis=1)
    clear = np.abs(distance - margin_mm) > 1e-6
    edge = np.abs(OBLIQUE.to_index(centers(grid)) % 1.0 - 0.5).min(axis=1) < 1e-9
    compared = (clear | (margin_mm == 0)) & ~edge
    assert np.array_equal(widened.ravel()[compared], (distance <= margin_mm + 1e-6)[compared])


def test_grid_with_other_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="axes"):
        mask_on(OBLIQUE).widened_on(Grid.from_spacing((9, 10, 11), origin_lps_mm=OBLIQUE.origin_lps_mm), 1.0)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_box_holds_every_voxel_and_nothing_more(order: tuple[int, ...]) -> None:
    affine = OBLIQUE.affine.copy()
    affine[:, :3] = affine[:, list(order)]
    lungs = mask_on(Grid((11, 11, 11), affine))
    corners = lungs.grid.to_index(lungs.box_corners_lps_mm())
    held = np.argwhere(lungs.labels)
    assert corners.shape == (8, 3)
    assert len(np.unique(corners.round(6), axis=0)) == 8
    assert np.allclose(corners.min(axis=0), held.min(axis=0) - 0.5)
    assert np.allclose(corners.max(axis=0), held.max(axis=0) + 0.5)


def test_box_of_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        LungMask(np.zeros(OBLIQUE.shape_zyx, np.uint8), OBLIQUE).box_corners_lps_mm()


def test_labels_must_fit_their_grid() -> None:
    with pytest.raises(ValueError, match="shape"):
        LungMask(np.zeros((1, 2, 3), np.uint8), OBLIQUE)


@settings(deadline=None, max_examples=100)
@given(st.tuples(*[st.floats(-4, 15)] * 3))
def test_side_is_that_of_the_nearest_voxel_within_4_mm(index_zyx: tuple[float, ...]) -> None:
    lungs = mask_on(OBLIQUE)
    side = lungs.side_at(OBLIQUE.to_patient(index_zyx))
    held = np.argwhere(lungs.labels)
    gap = np.linalg.norm(np.maximum(np.abs(held - index_zyx) - 0.5, 0) * OBLIQUE.spacing_zyx_mm, axis=1)
    nearest = {"right" if lungs.labels[tuple(h)] == RIGHT else "left" for h in held[gap <= gap.min() + 1e-9]}
    if gap.min() > 4.0 + 1e-6:
        assert side is None
    elif gap.min() < 4.0 - 1e-6:
        assert side in nearest


def test_volume_counts_voxels_of_a_side() -> None:
    lungs = mask_on(OBLIQUE)
    one_ml = 2.5 * 2.8 * 3.1 / 1000
    assert lungs.volume_ml("left") == pytest.approx(np.count_nonzero(lungs.labels == LEFT) * one_ml)
    assert lungs.volume_ml("right") == pytest.approx(np.count_nonzero(lungs.labels == RIGHT) * one_ml)
    assert lungs.volume_ml() == pytest.approx(np.count_nonzero(lungs.labels) * one_ml)
