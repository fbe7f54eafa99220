"""How far distances to the pleura and hila are from the truth, in the phantom whose shapes are known.

`python -m training.location_agreement` prints the figures of docs/measurements.md.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from app.imaging.lungs import Side, segment_lungs
from app.imaging.volume import Grid
from app.inference.location import LungSurface, lung_surface
from app.phantom.anatomy import HILUM_MM, lung_depth
from app.phantom.chest import CENTER_MM, phantom_ct

SAMPLES = 4000
NEAR_MM = 30.0
AWAY_FROM_MIDLINE_MM = 75.0
"""Farther in, the nearest surface of the phantom's lung is often the mediastinum, which is not meant."""


def pleura_errors_mm(surface: LungSurface, rng: np.random.Generator) -> NDArray[np.float64]:
    """Measured minus true distance at random points of the phantom's lungs that lie near their surface."""
    grid = Grid.from_spacing((300, 260, 300), (1.0, 1.0, 1.1), (-165.0, -130.0, -150.0))
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1).reshape(-1, 3)
    inside = (lung_depth(grid.to_patient(index) + CENTER_MM) > 0).reshape(grid.shape_zyx)
    depth = np.asarray(distance_transform_edt(inside, sampling=grid.spacing_zyx_mm))
    near = np.argwhere(inside & (depth < NEAR_MM))
    chosen = near[rng.choice(len(near), SAMPLES)]
    points = grid.to_patient(chosen)
    lateral = np.abs(points[:, 0]) > AWAY_FROM_MIDLINE_MM
    if surface.pleura is None:
        raise AssertionError("the phantom has lungs")
    measured = surface.pleura.query(points[lateral])[0] - surface.half_voxel_mm
    # From the voxel's centre to the face of the first one outside.
    return np.asarray(measured - (depth[tuple(chosen[lateral].T)] - 0.5))


def main() -> int:
    """Print the figures; the exit status."""
    chest = phantom_ct(shape_zyx=(120, 200, 200), spacing_zyx_mm=(2.5, 1.8, 1.8), nodules=[])
    surface = lung_surface(segment_lungs(chest.volume))
    errors = pleura_errors_mm(surface, np.random.default_rng(0))
    low, middle, high = np.quantile(errors, (0.025, 0.5, 0.975))
    lines = [f"pleura, mm: median {middle:.1f}, 95 % from {low:.1f} to {high:.1f}, n = {len(errors)}"]
    sides: tuple[tuple[Side, float], ...] = (("right", -1.0), ("left", 1.0))
    for side, sign in sides:
        away = np.linalg.norm(np.subtract(surface.hila_lps_mm[side], np.array(HILUM_MM[sign]) - CENTER_MM))
        lines.append(f"{side} hilum, mm: {away:.0f}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
