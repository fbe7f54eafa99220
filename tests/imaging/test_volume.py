"""Coordinates must come back: index -> LPS -> index, on every grid a scanner or a test can make."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.volume import CtVolume, Grid, PreparedVolume, canonical
from tests.imaging.grids import directions, grids, spacings_zyx_mm

INDEX_TOLERANCE = 1e-7
"""Voxels: coordinates of up to 1 m with the 16 digits of a double, through an inverse of a sheared affine."""

indices = st.lists(st.tuples(*[st.floats(-50.0, 50.0)] * 3), min_size=1, max_size=5)


@given(grids(), indices)
def test_index_comes_back_from_patient_space(grid: Grid, index_zyx: list[tuple[float, float, float]]) -> None:
    there = grid.to_patient(index_zyx)

    assert np.allclose(grid.to_index(there), index_zyx, rtol=0, atol=INDEX_TOLERANCE)


@given(grids(), indices)
def test_one_point_gives_what_many_give(grid: Grid, index_zyx: list[tuple[float, float, float]]) -> None:
    many = grid.to_patient(index_zyx)

    assert grid.to_patient(index_zyx[0]).shape == (3,)
    assert np.allclose(grid.to_patient(index_zyx[0]), many[0], rtol=0, atol=1e-9)
    assert np.allclose(grid.to_index(many[0]), grid.to_index(many)[0], rtol=0, atol=1e-9)


@given(grids())
def test_a_step_along_an_axis_is_spacing_times_direction(grid: Grid) -> None:
    for axis, step in enumerate(np.eye(3)):
        moved = grid.to_patient(step) - grid.to_patient((0, 0, 0))

        assert np.allclose(moved, grid.spacing_zyx_mm[axis] * grid.direction_lps_zyx[:, axis], rtol=0, atol=1e-9)
    assert np.allclose(grid.to_patient((0, 0, 0)), grid.origin_lps_mm, rtol=0, atol=0)


@given(spacings_zyx_mm, directions())
def test_from_spacing_says_what_it_was_told(spacing: tuple[float, float, float], direction: np.ndarray) -> None:
    grid = Grid.from_spacing((3, 4, 5), spacing, (10.0, -20.0, 30.0), direction)

    assert np.allclose(grid.spacing_zyx_mm, spacing, rtol=1e-12)
    assert np.allclose(grid.direction_lps_zyx, direction, atol=1e-12)
    assert grid.voxel_volume_mm3 == pytest.approx(np.prod(spacing))


def test_without_a_direction_x_is_left_y_posterior_z_superior() -> None:
    grid = Grid.from_spacing((4, 5, 6), (3.0, 2.0, 1.0), (10.0, 20.0, 30.0))

    assert grid.to_patient((1, 2, 3)).tolist() == [10.0 + 3 * 1.0, 20.0 + 2 * 2.0, 30.0 + 1 * 3.0]


def test_shear_changes_spacing_but_not_the_volume_of_a_voxel() -> None:
    upright = Grid.from_spacing((4, 5, 6), (3.0, 1.0, 1.0))
    leaning = np.eye(4)
    leaning[:3, :3] = upright.affine[:3, :3]
    leaning[1, 0] = 1.0

    sheared = Grid((4, 5, 6), leaning)

    assert sheared.spacing_zyx_mm[0] == pytest.approx(np.sqrt(10.0))
    assert sheared.voxel_volume_mm3 == pytest.approx(upright.voxel_volume_mm3)


@given(grids(), st.tuples(*[st.integers(0, 10)] * 3))
def test_cropped_grid_places_voxels_where_the_whole_one_does(grid: Grid, start: tuple[int, int, int]) -> None:
    cropped = grid.cropped(start, (2, 2, 2))

    assert np.allclose(cropped.to_patient((1, 0, 1)), grid.to_patient(np.add(start, (1, 0, 1))), rtol=0, atol=1e-8)


def test_voxels_reach_half_a_step_beyond_their_centres() -> None:
    grid = Grid.from_spacing((2, 3, 4))

    inside = grid.contains_index([(-0.5, 0, 0), (1.5, 2.5, 3.5), (-0.51, 0, 0), (0, 2.51, 0), (0, 0, 3.51)])

    assert inside.tolist() == [True, True, False, False, False]


def _affine(**changes: float) -> np.ndarray:
    affine = np.eye(4)
    for place, value in changes.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


@pytest.mark.parametrize(
    ("shape_zyx", "affine", "said"),
    [
        ((0, 1, 1), np.eye(4), "positive"),
        ((1, 1), np.eye(4), "three"),
        ((1, 1, 1), np.eye(3), "4x4"),
        ((1, 1, 1), _affine(a03=np.nan), "finite"),
        ((1, 1, 1), _affine(a30=1.0), "last row"),
        ((1, 1, 1), _affine(a00=0.0), "singular"),
    ],
)
def test_impossible_grids_are_refused(shape_zyx: tuple[int, ...], affine: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Grid(shape_zyx, affine)


def test_a_grid_cannot_be_changed_from_outside() -> None:
    affine = np.eye(4)
    grid = Grid((1, 1, 1), affine)
    affine[0, 3] = 99.0

    assert grid.affine[0, 3] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 1.0


@given(grids(max_shear=0.2))
def test_canonical_moves_no_voxel(grid: Grid) -> None:
    hu = np.arange(np.prod(grid.shape_zyx), dtype=np.int16).reshape(grid.shape_zyx)

    seen, seen_grid = canonical(CtVolume(hu, grid))

    for index in np.ndindex(*(min(n, 2) for n in seen.shape)):
        original = np.rint(grid.to_index(seen_grid.to_patient(index))).astype(int)
        assert hu[tuple(original)] == seen[index]


@given(directions(max_degrees=25.0))
def test_canonical_axes_run_to_head_back_and_left(direction: np.ndarray) -> None:
    volume = CtVolume(np.zeros((2, 3, 4), np.int16), Grid.from_spacing((2, 3, 4), (3.0, 2.0, 1.0), 0.0, direction))

    _, grid = canonical(volume)

    slices, rows, columns = grid.direction_lps_zyx.T
    assert slices[2] > 0.7
    assert rows[1] > 0.7
    assert columns[0] > 0.7


def test_canonical_is_a_view() -> None:
    volume = CtVolume(np.zeros((2, 3, 4), np.int16), Grid.from_spacing((2, 3, 4), 1.0, 0.0, -np.eye(3)))

    assert np.shares_memory(canonical(volume)[0], volume.hu)


def test_volumes_refuse_other_units_and_other_shapes() -> None:
    grid = Grid.from_spacing((2, 2, 2))

    with pytest.raises(ValueError, match="int16"):
        CtVolume(np.zeros((2, 2, 2), np.float32), grid)
    with pytest.raises(ValueError, match="shape"):
        CtVolume(np.zeros((2, 2, 3), np.int16), grid)
    with pytest.raises(ValueError, match="float32"):
        PreparedVolume(np.zeros((2, 2, 2)), grid, "")
    with pytest.raises(ValueError, match="shape"):
        PreparedVolume(np.zeros((2, 2, 3), np.float32), grid, "")
