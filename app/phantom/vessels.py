"""Branching vessels and bronchi of the lungs as tapered tubes.

A tree is grown towards random points of the lung: each point is joined to the node of the tree that makes wire length
plus a share of the path to the root shortest, which branches as arteries do (the idea is that of Cuntz et al., PLoS
Comput Biol 2010;6:e1000877). Radii follow from the number of ends beyond a node, as in Murray's law.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.phantom.anatomy import CARINA_MM, HILUM_MM, lung_depth

Points = NDArray[np.float64]

_PATH_SHARE = 0.25
_TURN_SHARE = 0.5
"""A branch that turns back costs this share of its length more for every right angle."""
_NODE_SPACING_MM = 9.0
_END_RADIUS_MM = 0.44
_MURRAY_EXPONENT = 2.8
_SAMPLE_MM = 1.0


@dataclass(frozen=True)
class Tubes:
    """Round tubes as dense samples of their centre lines.

    Parameters
    ----------
    points_mm, tangents
        (n, 3) in patient mm (x, y, z), about 1 mm apart; unit vectors.
    radii_mm
        (n,)
    """

    points_mm: Points
    tangents: Points
    radii_mm: NDArray[np.float64]


def joined(*tubes: Tubes) -> Tubes:
    """All tubes as one."""
    return Tubes(
        np.concatenate([t.points_mm for t in tubes]),
        np.concatenate([t.tangents for t in tubes]),
        np.concatenate([t.radii_mm for t in tubes]),
    )


def lung_vessels(rng: np.random.Generator) -> tuple[Tubes, Tubes, Tubes]:
    """Arteries with veins, outer walls of the airways, and their lumens."""
    vessels, outer, lumens = [], [], []
    for side, (x, y, z) in HILUM_MM.items():
        arteries = _tree(rng, np.array([x, y, z + 6.0]), side, ends=520, depth_mm=5.0)
        veins = _tree(rng, np.array([x, y - 10.0, z - 22.0]), side, ends=520, depth_mm=5.0)
        centre = _polyline(np.array([[side * 6.0, -20.0, z + 4.0], [x, y, z + 6.0]]), 8.5)
        atrium = _polyline(np.array([[side * 14.0, 2.0, z - 24.0], [x, y - 10.0, z - 22.0]]), 7.5)
        twigs = [_twigs(rng, tree, side) for tree in (arteries, veins)]
        vessels += [arteries, veins, centre, atrium, *twigs]
        beside = _bronchi(arteries)
        main = _polyline(np.array([CARINA_MM, beside.points_mm[np.argmax(beside.radii_mm)]]), 6.5)
        lumens += [beside, main]
    lumens.append(_polyline(np.array([[0.0, -2.0, 230.0], [0.0, 4.0, 110.0], CARINA_MM]), 8.8))
    outer = [Tubes(t.points_mm, t.tangents, t.radii_mm * 1.1 + 0.45) for t in lumens]
    return joined(*vessels), joined(*outer), joined(*lumens)


def random_points_in_lung(rng: np.random.Generator, count: int, side: float, depth_mm: float) -> Points:
    """(count, 3) points of one lung, at least ``depth_mm`` below its surface; side -1 right, +1 left."""
    box = np.array([[8.0, -92.0, -150.0], [140.0, 92.0, 128.0]])
    found: list[Points] = []
    while sum(len(f) for f in found) < count:
        points = rng.uniform(box[0], box[1], (8 * count, 3)) * [side, 1.0, 1.0]
        found.append(points[lung_depth(points) > depth_mm])
    return np.concatenate(found)[:count]


def _tree(rng: np.random.Generator, root_mm: Points, side: float, ends: int, depth_mm: float) -> Tubes:
    targets = random_points_in_lung(rng, ends, side, depth_mm)
    targets = targets[np.argsort(np.linalg.norm(targets - root_mm, axis=1))]
    room = ends * 40
    nodes, parents, path = np.zeros((room, 3)), np.zeros(room, np.intp), np.zeros(room)
    heading = np.zeros((room, 3))
    nodes[0], used = root_mm, 1
    is_end = np.zeros(room, bool)
    for target in targets:
        away = target - nodes[:used]
        reach = np.sqrt((away * away).sum(axis=1))
        turned = reach - (away * heading[:used]).sum(axis=1)
        nearest = int(np.argmin(reach + _PATH_SHARE * path[:used] + _TURN_SHARE * turned))
        pieces = max(1, round(float(reach[nearest]) / _NODE_SPACING_MM))
        bend = rng.normal(0.0, 0.07 * float(reach[nearest]), 3)
        share = np.arange(1, pieces + 1) / pieces
        new = slice(used, used + pieces)
        nodes[new] = nodes[nearest] + share[:, None] * (target - nodes[nearest]) + np.sin(np.pi * share)[:, None] * bend
        parents[new] = [nearest, *range(used, used + pieces - 1)]
        steps = np.diff(nodes[[nearest, *range(used, used + pieces)]], axis=0)
        heading[new] = steps / np.maximum(np.sqrt((steps * steps).sum(axis=1, keepdims=True)), 1e-6)
        path[new] = path[nearest] + share * reach[nearest]
        used += pieces
        is_end[used - 1] = True
    ends_beyond = is_end[:used].astype(float)
    for node in range(used - 1, 0, -1):
        ends_beyond[parents[node]] += ends_beyond[node]
    radii = _END_RADIUS_MM * ends_beyond ** (1.0 / _MURRAY_EXPONENT)
    child = np.arange(1, used)
    above = parents[child]
    # A branch starts at its own width, not at that of the trunk it leaves.
    first_radius = np.minimum(radii[above], 1.25 * radii[child])
    return _curves(nodes[above], nodes[child], nodes[above] - nodes[parents[above]], first_radius, radii[child])


def _curves(
    start: Points, end: Points, before: Points, first_radius: NDArray[np.float64], last_radius: NDArray[np.float64]
) -> Tubes:
    """Quadratic curves between (n, 3) points; they set out between the direction before and their own."""
    length = np.linalg.norm(end - start, axis=1, keepdims=True)
    heading = before / np.maximum(np.linalg.norm(before, axis=1, keepdims=True), 1e-6) + (end - start) / length
    heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-6)
    control = start + 0.4 * length * heading
    counts = np.maximum(1, np.ceil(length[:, 0] / _SAMPLE_MM)).astype(np.intp)
    edge = np.repeat(np.arange(len(start)), counts)
    place = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / counts[edge]
    t = place[:, None]
    points = (1 - t) ** 2 * start[edge] + 2 * t * (1 - t) * control[edge] + t**2 * end[edge]
    tangents = 2 * (1 - t) * (control - start)[edge] + 2 * t * (end - control)[edge]
    tangents /= np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-6)
    return Tubes(points, tangents, first_radius[edge] * (1 - place) + last_radius[edge] * place)


def _twigs(rng: np.random.Generator, tree: Tubes, side: float) -> Tubes:
    """Short thin branches all over a tree."""
    chosen = rng.choice(len(tree.points_mm), size=min(2600, len(tree.points_mm)), replace=False)
    start, along = tree.points_mm[chosen], tree.tangents[chosen]
    heading = along + rng.normal(0.0, 0.55, along.shape)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    end = start + heading * rng.uniform(8.0, 22.0, (len(chosen), 1))
    thickness = np.minimum(tree.radii_mm[chosen] * 0.6, rng.uniform(0.3, 0.6, len(chosen)))
    kept = (lung_depth(end) > 2.5) & (end[:, 0] * side > 0)
    return _curves(start[kept], end[kept], along[kept], 1.0 * thickness[kept], 0.65 * thickness[kept])


def _bronchi(arteries: Tubes) -> Tubes:
    """Lumens of the bronchi that run beside the arteries down to about 2 mm."""
    wide = arteries.radii_mm > 1.5
    tangents, radii = arteries.tangents[wide], arteries.radii_mm[wide]
    lumen = 0.7 * radii
    beside = np.array([0.15, 0.55, 0.8]) - tangents * (tangents @ np.array([0.15, 0.55, 0.8]))[:, None]
    beside /= np.maximum(np.linalg.norm(beside, axis=1, keepdims=True), 0.3)
    return Tubes(arteries.points_mm[wide] + beside * (radii + lumen * 1.12 + 0.6)[:, None], tangents, lumen)


def _polyline(corners_mm: Points, radius_mm: float) -> Tubes:
    """A tube of constant radius through corners."""
    points, tangents = [], []
    for a, b in pairwise(corners_mm):
        length = float(np.linalg.norm(b - a))
        count = max(2, int(length / _SAMPLE_MM))
        points.append(a + (b - a) * ((np.arange(count) + 0.5) / count)[:, None])
        tangents.append(np.repeat(((b - a) / length)[None], count, axis=0))
    centre = np.concatenate(points)
    return Tubes(centre, np.concatenate(tangents), np.full(len(centre), radius_mm))
