"""The nearest affine is exact where the mapping is one, and says how far it is off where it is not."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.imaging.affine_fit import nearest_affine
from app.imaging.alignment import Mapping
from app.imaging.volume import Grid
from tests.imaging.grids import rotations

GRID = Grid.from_spacing((20, 24, 22), (8.0, 8.0, 8.0), (-90.0, -100.0, -500.0))


@settings(max_examples=25)
@given(rotations(20.0), st.tuples(*[st.floats(-80.0, 80.0)] * 3), st.floats(0.9, 1.1))
def test_an_affine_comes_back(turn: np.ndarray, shift: tuple[float, float, float], scale: float) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = scale * turn, shift
    mapping = Mapping(affine, np.zeros((*GRID.shape_zyx, 3), np.float32), GRID)
    for points in (None, GRID.to_patient(np.random.default_rng(0).uniform(0, 19, (50, 3)))):
        found, residual_mm = nearest_affine(mapping, points)
        assert np.allclose(found, affine, atol=1e-6)
        assert residual_mm < 1e-6


def test_what_no_affine_can_do_is_told() -> None:
    z = np.arange(GRID.shape_zyx[0]) / (GRID.shape_zyx[0] - 1)
    displacement = np.zeros((*GRID.shape_zyx, 3), np.float32)
    displacement[..., 2] = (20.0 * np.sin(2 * np.pi * z))[:, None, None]
    mapping = Mapping(np.eye(4), displacement, GRID)
    points = GRID.to_patient(np.random.default_rng(1).uniform(0, 19, (500, 3)))
    affine, residual_mm = nearest_affine(mapping, points)
    off_mm = np.linalg.norm(points @ affine[:3, :3].T + affine[:3, 3] - mapping.to_prior(points), axis=1)
    assert 5.0 < residual_mm < 20.0
    assert np.mean(off_mm <= residual_mm + 1e-9) >= 0.9
