"""What a picture shows must lie where its matrix says, whatever way the scan lies in the patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.imaging.planes import PLANES, planes_of
from app.imaging.slabs import Slab, Window, cut
from app.imaging.volume import Grid
from app.phantom.chest import phantom_ct
from app.phantom.nodules import NoduleSpec
from tests.imaging.grids import AXIS_ORDERS, grids, rotations

LETTERS = {"R": (-1, 0, 0), "L": (1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}


@settings(max_examples=50)
@given(grids(), st.data())
def test_a_pixel_lies_where_its_voxel_does(grid: Grid, data: st.DataObject) -> None:
    numbers = np.arange(np.prod(grid.shape_zyx)).reshape(grid.shape_zyx)
    for name in PLANES:
        plane = planes_of(grid)[name]
        pictures = plane.arranged(numbers)
        assert pictures.shape == plane.shape
        pixel = tuple(data.draw(st.integers(0, n - 1)) for n in plane.shape)
        index = np.unravel_index(int(pictures[pixel]), grid.shape_zyx)
        there = plane.to_lps_mm @ (*pixel, 1.0)
        assert np.allclose(there[:3], grid.to_patient(index), rtol=0, atol=1e-7)
        assert np.allclose(plane.from_index(index), pixel, rtol=0, atol=1e-9)
        assert index[plane.axes[0]] == pixel[0]  # slices count as the scan does
        assert np.allclose(plane.spacing_mm, np.linalg.norm(plane.to_lps_mm[:3, :3], axis=0))


@pytest.mark.parametrize("order", AXIS_ORDERS)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1), (-1, -1, -1)])
@settings(max_examples=8)
@given(turn=rotations(20.0))
def test_the_labels_say_where_the_picture_goes(
    order: tuple[int, int, int], signs: tuple[int, int, int], turn: np.ndarray
) -> None:
    grid = Grid.from_spacing((5, 6, 7), (3.0, 0.7, 0.8), (9.0, 8.0, 7.0), turn @ (np.eye(3)[:, list(order)] * signs))
    for plane in planes_of(grid).values():
        _, down, across = plane.to_lps_mm[:3, :3].T / np.array(plane.spacing_mm)[:, None]
        for direction, low, high in ((across, plane.edges.left, plane.edges.right), (down, plane.edges.top,
                                                                                     plane.edges.bottom)):  # fmt: skip
            nearest = max(LETTERS, key=lambda letter: float(direction @ LETTERS[letter]))
            assert nearest == high
            assert np.array_equal(np.negative(LETTERS[high]), LETTERS[low])


def test_a_radiologist_sees_what_they_expect() -> None:
    # z to the head, y to the back, x to the left: the usual scan.
    planes = planes_of(Grid.from_spacing((40, 60, 50), (2.5, 0.7, 0.8)))
    assert vars(planes["axial"].edges) == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert vars(planes["coronal"].edges) == {"left": "R", "right": "L", "top": "H", "bottom": "F"}
    assert vars(planes["sagittal"].edges) == {"left": "A", "right": "P", "top": "H", "bottom": "F"}
    assert [planes[name].shape for name in PLANES] == [(40, 60, 50), (60, 40, 50), (50, 40, 60)]
    assert [planes[name].axes[0] for name in PLANES] == [0, 1, 2]
    assert planes["axial"].spacing_mm == (2.5, 0.7, 0.8)


@pytest.mark.parametrize(("order", "signs"), [((2, 1, 0), (1, 1, 1)), ((2, 1, 0), (-1, 1, 1)), ((1, 2, 0), (1, -1, 1)),
                                              ((0, 1, 2), (1, -1, -1))])  # fmt: skip
@pytest.mark.parametrize("degrees", [10])
def test_a_nodule_is_the_brightest_pixel_where_the_matrix_puts_it(
    order: tuple[int, int, int], signs: tuple[int, int, int], degrees: int
) -> None:
    turn, (c, s) = np.eye(3), (np.cos(np.radians(degrees)), np.sin(np.radians(degrees)))
    turn[1:, 1:] = [[c, -s], [s, c]]
    world = phantom_ct(
        shape_zyx=(72, 80, 80), spacing_zyx_mm=(4.5, 4.5, 4.5), nodules=[NoduleSpec(24.0)], noise_hu=0.0, seed=2,
        direction_lps_zyx=turn @ (np.eye(3)[:, list(order)] * signs),
    )  # fmt: skip
    volume, (nodule,) = world.volume, world.nodules
    for plane in planes_of(volume.grid).values():
        place = np.linalg.inv(plane.to_lps_mm) @ (*nodule.center_lps_mm, 1.0)
        number, row, column = (int(i) for i in np.rint(place[:3]))
        picture = cut(volume.hu, plane, Slab(number, 1), Window(-600.0, 1500.0))[0].astype(int)
        reach = [int(np.ceil(20.0 / mm)) for mm in plane.spacing_mm[1:]]
        around = picture[row - reach[0] : row + reach[0] + 1, column - reach[1] : column + reach[1] + 1]
        assert picture[row, column] == around.max() > around.min() + 100
