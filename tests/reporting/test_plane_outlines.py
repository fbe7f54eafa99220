"""Outlines on the pictures enclose the nodule's voxels, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, ImageDraw

from app.imaging.planes import PLANES, PlaneName, planes_of
from app.imaging.volume import Grid
from app.reporting.outlines import original_voxels
from app.reporting.plane_outlines import polygons
from tests.imaging.grids import directions
from tests.reporting.worlds import sphere

SCALE = 10


@settings(max_examples=25)
@given(directions())
def test_the_polygons_enclose_the_marked_pixels(direction: np.ndarray) -> None:
    grid = Grid.from_spacing((30, 40, 44), (2.5, 1.0, 1.2), (-20.0, 10.0, 5.0), direction)
    center = grid.to_patient((12.3, 20.6, 18.1))
    voxels = original_voxels(sphere(center, 11.0), grid)
    marked = np.zeros(grid.shape_zyx, np.bool_)
    marked[tuple(voxels.T)] = True
    for plane in planes_of(grid).values():
        drawn = np.zeros(plane.shape, np.bool_)
        for number, corners in polygons(voxels, plane):
            assert corners[0] == corners[-1]
            drawn[number] |= filled(corners, plane.shape[1:])
        assert np.array_equal(drawn, plane.arranged(marked))


def filled(corners: list[tuple[float, float]], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies in a polygon, by PIL's own filling on a picture ten times as large."""
    large = Image.new("1", (shape[1] * SCALE, shape[0] * SCALE))
    ImageDraw.Draw(large).polygon([((c + 0.5) * SCALE, (r + 0.5) * SCALE) for r, c in corners], fill=1)
    return np.asarray(large)[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]


@pytest.mark.parametrize("name", PLANES)
def test_two_parts_and_a_single_voxel(name: PlaneName) -> None:
    plane = planes_of(Grid.from_spacing((9, 9, 9)))[name]
    apart = np.array([(4, 4, 4), (4, 4, 7), (4, 7, 4), (7, 4, 4)])
    lines = polygons(apart, plane)
    assert len(lines) == 4
    assert [number for number, _ in lines] == sorted(number for number, _ in lines)
    assert polygons(np.zeros((0, 3), np.intp), plane) == []
