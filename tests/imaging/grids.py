"""Hypothesis strategies for voxel grids in patient space."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from app.imaging.volume import Grid

AXIS_ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]

coordinates = st.floats(-1000.0, 1000.0, allow_subnormal=False)
shapes_zyx = st.tuples(*[st.integers(1, 40)] * 3)
spacings_zyx_mm = st.tuples(*[st.floats(0.2, 8.0)] * 3)


@st.composite
def rotations(draw: st.DrawFn, max_degrees: float = 180.0) -> np.ndarray:
    """Proper 3x3 rotations about any axis (Rodrigues)."""
    # No angles of 1e-300: nobody has them, and ITK's decomposition of a direction stumbles over them.
    z, turn = draw(st.integers(-1000, 1000)) / 1000.0, draw(st.integers(0, 6283)) / 1000.0
    x, y = np.sqrt(1.0 - z * z) * np.cos(turn), np.sqrt(1.0 - z * z) * np.sin(turn)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(draw(st.integers(0, int(100 * max_degrees))) / 100.0)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@st.composite
def directions(draw: st.DrawFn, max_degrees: float = 180.0) -> np.ndarray:
    """Orthonormal columns in any order, each forwards or backwards, then turned: oblique, flipped, permuted."""
    columns = np.eye(3)[:, list(draw(st.sampled_from(AXIS_ORDERS)))]
    signs = draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3))
    return draw(rotations(max_degrees)) @ (columns * signs)


@st.composite
def grids(draw: st.DrawFn, max_shear: float = 0.4) -> Grid:
    """Anisotropic grids of any orientation; slices may lean over as with a tilted gantry."""
    grid = Grid.from_spacing(draw(shapes_zyx), draw(spacings_zyx_mm), draw(st.tuples(*[coordinates] * 3)),
                             draw(directions()))  # fmt: skip
    shear = np.eye(4)
    shear[1:3, 0] = draw(st.tuples(*[st.floats(-max_shear, max_shear)] * 2))
    return Grid(grid.shape_zyx, grid.affine @ shear)
