"""The shapes of the synthetic chest as smooth distance functions of patient coordinates.

All lengths are mm in the patient's own frame: x to the left, y to posterior, z to the head, origin between the lungs
about 3 cm below the carina. Distances are signed, positive inside, and right to first order near the surface.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

HILUM_MM = {-1.0: (-40.0, 2.0, 0.0), 1.0: (40.0, 4.0, 4.0)}
"""Where vessels and bronchi enter the lung, by the sign of x: -1 the patient's right, +1 the left."""
CARINA_MM = (0.0, 14.0, 30.0)
FAT_HU, LEAN_HU, AIR_HU = -100.0, 48.0, -1000.0
_SPINE_Y_MM = 60.0
_SMOOTH_MM = 7.0


@dataclass(frozen=True)
class Tissues:
    """Signed distances in mm on one set of points, and the HU of what is neither fat, lung nor bone."""

    body: Field
    lung: Field
    lean: Field
    bone: Field
    lean_hu: Field


def tissues(x: Field, y: Field, z: Field) -> Tissues:
    """Evaluate the chest at points given as broadcastable coordinates in mm."""
    wall = _chest_wall(x, y, z)
    body = _body(x, y, z)
    dome = _above_diaphragm(x, y, z)
    organs = _organs(x, y, z)
    spine = _ellipse(x, y - np.float32(_SPINE_Y_MM), 21.0, 19.0)
    space = _intersection(wall - 1.0, dome, 5.0)
    lung = _without_mediastinum(x, y, z, space, organs)
    bone = np.maximum(_spine_bone(x, y, z), np.maximum(_sternum(x, y, z), _scapula(x, y, z, wall)))
    below, abdomen_hu = _abdomen(x, y, z, dome)
    inside_wall = np.minimum(wall, -np.abs(wall) + 1e3)
    muscle = np.minimum(body - _fat_thickness(x, y, z), -inside_wall - 0.5)
    # A fat plane between the muscle layers, as under the scapula.
    muscle = np.minimum(muscle, np.abs(wall + 19.0) - 2.0)
    lean = np.maximum(np.maximum(muscle, organs), np.maximum(spine, np.minimum(below, wall)))
    table = _table(x, y, z)
    lean_hu = np.where(dome < 0, np.where(wall > 0, abdomen_hu, LEAN_HU + 8.0), LEAN_HU).astype(np.float32)
    lean_hu = np.where(table > -6.0, np.float32(-180.0), lean_hu)
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)

    def full(field: Field) -> Field:
        return np.broadcast_to(np.asarray(field, dtype=np.float32), shape)

    return Tissues(
        body=full(np.maximum(body, table)),
        lung=full(lung),
        lean=full(np.maximum(lean, table)),
        bone=full(bone),
        lean_hu=full(lean_hu),
    )


def lung_depth(points_mm: NDArray[np.float64]) -> Field:
    """(n, 3) points (x, y, z) in patient mm -> (n,) signed depth below the lung's surface in mm."""
    x, y, z = np.asarray(points_mm, dtype=np.float32).T
    space = _intersection(_chest_wall(x, y, z) - 1.0, _above_diaphragm(x, y, z), 5.0)
    return _without_mediastinum(x, y, z, space, _organs(x, y, z))


def rib_centrelines() -> list[NDArray[np.float64]]:
    """(n, 3) points of each of the 22 ribs and two clavicles, 3 mm apart or less."""
    lines = []
    for side in (-1.0, 1.0):
        for top in np.arange(-118.0, 132.0, 23.5):
            turn = np.linspace(0.16 * np.pi, 0.86 * np.pi, 80)
            z = top + 18.0 - 62.0 * np.sin(turn / 2.0) ** 2
            half_x, half_y = _cavity_half_axes(z.astype(np.float32))
            lines.append(np.stack([side * (half_x + 6.0) * np.sin(turn), (half_y + 6.0) * np.cos(turn), z], axis=1))
        shoulder = np.array([[20.0, -72.0, 112.0], [75.0, -66.0, 128.0], [150.0, -20.0, 150.0]]) * [side, 1.0, 1.0]
        lines.append(np.concatenate([np.linspace(a, b, 40) for a, b in pairwise(shoulder)]))
    return lines


def _smooth_step(value: Field) -> Field:
    clipped = np.clip(value, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped), dtype=np.float32)


def _union(first: Field, second: Field, radius: float = _SMOOTH_MM) -> Field:
    """Union whose inner edges are rounded: a polynomial smooth maximum."""
    gap = np.maximum(radius - np.abs(first - second), 0.0)
    return np.asarray(np.maximum(first, second) + gap * gap * (0.25 / radius), dtype=np.float32)


def _intersection(first: Field, second: Field, radius: float = _SMOOTH_MM) -> Field:
    return -_union(-first, -second, radius)


def _ellipse(x: Field, y: Field, half_x: float | Field, half_y: float | Field) -> Field:
    """Signed distance to an elliptic cylinder, first order."""
    u, v = x / half_x, y / half_y
    level = np.sqrt(u * u + v * v) + np.float32(1e-3)
    slope = np.sqrt((u / half_x) ** 2 + (v / half_y) ** 2) / level + np.float32(1e-3)
    return np.asarray((1.0 - level) / slope, dtype=np.float32)


def _superellipse(x: Field, y: Field, half_x: Field, half_y: Field, power: float) -> Field:
    """Signed distance to a fuller ellipse, first order."""
    u, v = np.abs(x) / half_x + 1e-4, np.abs(y) / half_y + 1e-4
    below = u ** (power - 1.0), v ** (power - 1.0)
    level = (u * below[0] + v * below[1]) ** np.float32(1.0 / power)
    slope = np.sqrt((below[0] / half_x) ** 2 + (below[1] / half_y) ** 2) / (level ** (power - 1.0) + 1e-4) + 2e-3
    return np.asarray((1.0 - level) / slope, np.float32)


def _ellipsoid(
    x: Field, y: Field, z: Field, centre: tuple[float, float, float], half: tuple[float, float, float]
) -> Field:
    u, v, w = ((p - np.float32(c)) / np.float32(h) for p, c, h in zip((x, y, z), centre, half, strict=True))
    level = np.sqrt(u * u + v * v + w * w) + np.float32(1e-3)
    slope = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2 + (w / half[2]) ** 2) / level + np.float32(1e-3)
    return np.asarray((1.0 - level) / slope, dtype=np.float32)


def _cavity_half_axes(z: Field) -> tuple[Field, Field]:
    """Half axes of the inside of the rib cage, widest above the diaphragm, closing at the apex."""
    up = np.clip((z + 50.0) / 178.0, 0.0, 0.998)
    taper = np.sqrt(1.0 - up**3)
    waist = 1.0 - 0.04 * np.clip((-z - 50.0) / 100.0, 0.0, 1.0)
    return np.asarray(140.0 * taper * waist, np.float32), np.asarray(96.0 * taper**0.75 * waist, np.float32)


def _chest_wall(x: Field, y: Field, z: Field) -> Field:
    half_x, half_y = _cavity_half_axes(z)
    # The ribs' waviness, and flanks fuller than an ellipse.
    wave = 1.2 * np.sin(z * np.float32(2 * np.pi / 23.5) + y * np.float32(0.03))
    # Deep gutters beside the spine, a flatter front.
    depth = half_y * (1.0 + 0.07 * np.clip(y / 40.0, -1.0, 1.0))
    return _superellipse(x, y, half_x, depth, 2.15) + np.asarray(wave, np.float32)


def _body(x: Field, y: Field, z: Field) -> Field:
    shoulders = _smooth_step((z - 40.0) / 110.0)
    half_x, half_y = 178.0 + 32.0 * shoulders, 127.0 - 12.0 * shoulders
    return _superellipse(x, y - 8.0, half_x, half_y, 2.3)


def _fat_thickness(x: Field, y: Field, z: Field) -> Field:
    front, side = np.clip(-y / 120.0, 0.0, 1.0), np.clip(np.abs(x) / 150.0, 0.0, 1.0)
    return np.asarray(
        11.0 + 9.0 * front + 5.0 * side + 3.0 * np.sin(x * 0.035 + 1.0) * np.cos(z * 0.03),
        np.float32,
    )


def _above_diaphragm(x: Field, y: Field, z: Field) -> Field:
    """Positive above the two domes; they fall towards the costophrenic angles, deepest behind."""

    def dome(centre_x: float, centre_y: float, top: float) -> Field:
        return np.asarray(top - 62.0 * (((x - centre_x) / 105.0) ** 2 + ((y - centre_y) / 96.0) ** 2), np.float32)

    surface = _union(dome(-66.0, -18.0, -66.0), dome(68.0, -14.0, -80.0), 14.0)
    steep = np.sqrt(1.0 + (np.minimum(np.abs(y) / 75.0, 1.4)) ** 2)
    return np.asarray((z - surface + 1.5 * np.sin(x * 0.05) * np.sin(y * 0.06)) / steep, np.float32)


def _organs(x: Field, y: Field, z: Field) -> Field:
    """Heart, great vessels, oesophagus: what is lean in the mediastinum."""
    tilted_x, tilted_y = x * 0.82 - y * 0.57, x * 0.57 + y * 0.82
    heart = _ellipsoid(tilted_x, tilted_y, z, (40.0, -8.0, -46.0), (62.0, 46.0, 54.0))
    upper = _smooth_step((z + 30.0) / 30.0) * _smooth_step((78.0 - z) / 20.0)
    ascending = _ellipse(x + 16.0, y + 28.0, 17.0, 17.0) - 40.0 * (1.0 - upper)
    trunk = _ellipsoid(x, y, z, (22.0, -30.0, 16.0), (19.0, 22.0, 24.0))
    arch = _ellipsoid(x * 0.9 - y * 0.44, x * 0.44 + y * 0.9, z, (2.0, -6.0, 62.0), (13.0, 40.0, 15.0))
    cava = _ellipse(x + 33.0, y + 10.0, 10.0, 10.0) - 40.0 * (1.0 - _smooth_step((z + 25.0) / 20.0))
    descending = _ellipse(x - 23.0, y - 42.0, 13.0, 13.0) - 40.0 * _smooth_step((z - 62.0) / 20.0)
    oesophagus = _ellipse(x - 3.0, y - 32.0, 9.0, 7.0)
    atrium = _ellipsoid(x, y, z, (0.0, 8.0, -22.0), (42.0, 22.0, 26.0))
    branches = _ellipse(x, y - 2.0, 27.0, 15.0) - 60.0 * (1.0 - _smooth_step((z - 66.0) / 20.0))
    solid = heart
    for part in (ascending, trunk, arch, cava, descending, oesophagus, atrium, branches):
        solid = np.maximum(solid, part)
    return np.asarray(solid, np.float32)


def _without_mediastinum(x: Field, y: Field, z: Field, space: Field, organs: Field) -> Field:
    """Both lungs: the space above the diaphragm without the mediastinum and its fat."""
    wander = 2.2 * np.sin(0.045 * z + 0.02 * y + 0.6) + 1.4 * np.sin(0.09 * y - 0.07 * z)
    septum = 4.0 + 15.0 * _smooth_step((y + 70.0) / 45.0) + 5.0 * _smooth_step((z - 70.0) / 40.0) - np.abs(x + wander)
    hilum = _ellipsoid(np.abs(x), y, z, (20.0, 4.0, 0.0), (26.0, 21.0, 30.0))
    paravertebral = _ellipse(x, y - np.float32(_SPINE_Y_MM + 4.0), 22.0, 24.0)
    # Rib heads and muscle push the lung aside behind the vertebral body.
    back = np.maximum(y - np.float32(_SPINE_Y_MM), 0.0)
    behind = np.minimum(y - np.float32(_SPINE_Y_MM), 20.0 + 0.011 * back * back - np.abs(x)) * 0.9
    middle = _union(_union(organs + 3.0, septum), _union(hilum, _union(paravertebral, behind)))
    return np.asarray(_intersection(space, -middle, 5.0) + 0.5 * np.sin(0.13 * x + 0.11 * z), np.float32)


def _spine_bone(x: Field, y: Field, z: Field) -> Field:
    """Vertebral bodies with discs between, pedicles, arch and spinous process."""
    cycle = np.cos(z * np.float32(2 * np.pi / 25.0))
    body = _ellipse(x, y - np.float32(_SPINE_Y_MM), 18.0 + 1.2 * cycle, 15.0 + 1.0 * cycle)
    body = np.minimum(body, 2.5 * (cycle + 0.84) * 4.0)
    canal = _ellipse(x, y - np.float32(_SPINE_Y_MM + 23.0), 9.0, 8.0)
    arch = np.minimum(_ellipse(x, y - np.float32(_SPINE_Y_MM + 22.0), 15.0, 13.0), -canal)
    process = np.minimum(3.2 - np.abs(x), 13.0 - np.abs(y - np.float32(_SPINE_Y_MM + 44.0)))
    transverse = np.minimum(4.5 - np.abs(y - np.float32(_SPINE_Y_MM + 21.0)), 32.0 - np.abs(x))
    transverse = np.minimum(np.minimum(transverse, -canal), 2.0 + 4.0 * cycle)
    arch = np.minimum(np.maximum(arch, process), 8.0 * (cycle + 0.35))
    return np.asarray(np.maximum(np.maximum(body, arch), transverse), np.float32)


def _sternum(x: Field, y: Field, z: Field) -> Field:
    _, half_y = _cavity_half_axes(z)
    plate = _ellipse(x, y + half_y + 8.0, 17.0 + 0.08 * np.clip(z, -40.0, 90.0), 6.0)
    return np.asarray(np.minimum(plate, np.minimum(z + 55.0, 100.0 - z)), np.float32)


def _scapula(x: Field, y: Field, z: Field, wall: Field) -> Field:
    """A thin plate that follows the rib cage, with a spine on it."""
    blade = 2.4 - np.abs(wall + 26.0 + 0.04 * (np.abs(x) - 80.0))
    blade = np.minimum(blade, np.minimum(np.abs(x) - 62.0, 142.0 - np.abs(x)))
    return np.asarray(np.minimum(np.minimum(blade, y - 10.0), np.minimum(z - 5.0, 150.0 - z)), np.float32)


def _abdomen(x: Field, y: Field, z: Field, dome: Field) -> tuple[Field, Field]:
    """Distance to the organs under the diaphragm, and their HU."""
    liver = _union(_ellipsoid(x, y, z, (-60.0, -10.0, -150.0), (92.0, 96.0, 92.0)), 40.0 - x - 2.0 * np.abs(z + 100.0))
    spleen = _ellipsoid(x, y, z, (92.0, 45.0, -130.0), (34.0, 42.0, 46.0))
    stomach = _ellipsoid(x, y, z, (70.0, -30.0, -125.0), (46.0, 48.0, 42.0))
    organs = np.maximum(liver, np.maximum(spleen, stomach))
    hu = np.where(liver >= np.maximum(spleen, stomach), 60.0, np.where(spleen > stomach, 52.0, 35.0))
    return np.asarray(np.minimum(organs, -dome), np.float32), np.asarray(hu, np.float32)


def _table(x: Field, y: Field, z: Field) -> Field:
    """Two curved shells under the patient."""
    del z
    surface = y - 145.0 + (x / 200.0) ** 2 * 34.0
    shells = np.maximum(2.4 - np.abs(surface), 2.6 - np.abs(surface - 26.0 + (x / 200.0) ** 2 * 8.0))
    return np.asarray(np.minimum(shells, 205.0 - np.abs(x)), np.float32)
