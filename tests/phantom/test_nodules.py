"""Nodule bodies have the volume they claim, and lie where their site says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.imaging.volume import Grid
from app.phantom.anatomy import HILUM_MM, lung_depth
from app.phantom.nodules import NoduleSpec, draw_specs, find_place, make_shape, paint_nodule
from app.phantom.vessels import Tubes, lung_vessels

CHEST = Grid.from_spacing((60, 60, 80), (5.0, 5.0, 5.0), (-200.0, -140.0, -155.0))
NONE_TAKEN = np.zeros((0, 4))


@pytest.fixture(scope="module")
def vessels() -> Tubes:
    return lung_vessels(np.random.default_rng(0))[0]


@settings(max_examples=15)
@given(st.floats(3.0, 30.0), st.sampled_from(["smooth", "lobulated", "spiculated"]), st.integers(0, 10_000))
def test_a_body_has_the_volume_of_its_sphere(diameter: float, margin: str, seed: int) -> None:
    shape = make_shape(np.random.default_rng(seed), NoduleSpec(diameter, margin=margin), (1.0, 2.0, 3.0))
    step = diameter / 20.0
    axis = np.arange(-24, 25) * step
    points = np.stack(np.meshgrid(axis + 1.0, axis + 2.0, axis + 3.0, indexing="ij"), axis=-1).reshape(-1, 3)

    inside = np.count_nonzero(shape.level(points.astype(np.float32)) < 1.0) * step**3

    assert inside == pytest.approx(np.pi / 6.0 * diameter**3, rel=0.02)


def test_painting_adds_the_volume_of_the_body_on_anisotropic_voxels() -> None:
    shape = make_shape(np.random.default_rng(1), NoduleSpec(6.0), (0.0, 0.0, 0.0))
    grid = Grid.from_spacing((12, 40, 40), (2.5, 0.7, 0.9), (-17.0, -13.0, -13.0))
    hu = np.full(grid.shape_zyx, -880, np.int16)

    paint_nodule(shape, grid, hu)

    filled = (hu + 880.0).sum() / (shape.hu + 880.0) * grid.voxel_volume_mm3
    assert filled == pytest.approx(np.pi / 6.0 * 6.0**3, rel=0.03)


def test_a_nodule_outside_the_grid_paints_nothing() -> None:
    shape = make_shape(np.random.default_rng(1), NoduleSpec(6.0), (500.0, 0.0, 0.0))
    hu = np.full((8, 8, 8), -880, np.int16)

    paint_nodule(shape, Grid.from_spacing((8, 8, 8)), hu)

    assert (hu == -880).all()


def test_ground_glass_leaves_vessels_visible() -> None:
    shape = make_shape(np.random.default_rng(1), NoduleSpec(10.0, "ground-glass"), (8.0, 8.0, 8.0))
    hu = np.full((16, 16, 16), -880, np.int16)
    hu[:, 8, 8] = 40

    paint_nodule(shape, Grid.from_spacing((16, 16, 16)), hu)

    assert hu[8, 8, 8] == 40
    assert -660 < hu[8, 8, 6] < -440


def test_a_part_solid_nodule_has_a_dense_core_in_a_thin_halo() -> None:
    shape = make_shape(np.random.default_rng(1), NoduleSpec(16.0, "part-solid"), (12.0, 12.0, 12.0))
    hu = np.full((24, 24, 24), -880, np.int16)

    paint_nodule(shape, Grid.from_spacing((24, 24, 24)), hu)

    assert hu[12, 12, 12] > -10
    assert -660 < hu[12, 12, 18] < -440


@settings(max_examples=8)
@given(st.floats(4.0, 20.0), st.sampled_from(["free", "juxtapleural", "vascular"]), st.integers(0, 1000))
def test_sites(vessels: Tubes, diameter: float, site: str, seed: int) -> None:
    radius = diameter / 2.0

    place = find_place(np.random.default_rng(seed), NoduleSpec(diameter, site=site), vessels, NONE_TAKEN, CHEST)

    depth = float(lung_depth(place[None])[0])
    to_vessels = (np.linalg.norm(vessels.points_mm - place, axis=1) - vessels.radii_mm)[vessels.radii_mm > 1.25].min()
    to_branches = (np.linalg.norm(vessels.points_mm - place, axis=1))[vessels.radii_mm > 0.9].min()
    assert min(np.linalg.norm(place - np.array(hilum)) for hilum in HILUM_MM.values()) > 40.0
    if site == "free":
        assert depth > radius + 4.0
        assert to_vessels > radius
    elif site == "juxtapleural":
        assert 0.7 * radius < depth < 0.95 * radius
    else:
        assert to_branches < radius


def test_nodules_keep_apart(vessels: Tubes) -> None:
    taken = NONE_TAKEN
    for seed in range(5):
        place = find_place(np.random.default_rng(seed), NoduleSpec(10.0), vessels, taken, CHEST)
        assert all(np.linalg.norm(place - other[:3]) > 25.0 for other in taken)
        taken = np.concatenate([taken, [[*place, 5.0]]])


def test_a_mixed_set_begins_with_a_clear_one() -> None:
    specs = draw_specs(np.random.default_rng(0), 40)

    assert (specs[0].kind, specs[0].diameter_mm) == ("solid", 12.0)
    assert {s.kind for s in specs} == {"solid", "part-solid", "ground-glass"}
    assert {s.margin for s in specs} == {"smooth", "lobulated", "spiculated"}
    assert {s.site for s in specs} == {"free", "juxtapleural", "vascular"}
    assert draw_specs(np.random.default_rng(0), 0) == ()


@pytest.mark.parametrize("diameter", [0.0, 61.0, float("nan")])
def test_impossible_diameters_are_refused(diameter: float) -> None:
    with pytest.raises(ValueError, match="diameter_mm"):
        NoduleSpec(diameter)
