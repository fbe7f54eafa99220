"""The lung mask on chests drawn here: all that makes real scans hard, one thing at a time."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from app.imaging.errors import NotChestCt
from app.imaging.lungs import LEFT, RIGHT, LungMask, coverage_warnings, segment_lungs
from app.imaging.volume import CtVolume, Grid
from tests.imaging.drawn_chest import (
    AIR,
    AIRWAY,
    BONE,
    CARINA,
    LEFT_LUNG,
    LUNG,
    LUNG_ML,
    RIGHT_LUNG,
    STRAIGHT,
    TISSUE,
    Shape,
    ball,
    box,
    chest,
    ellipsoid,
    points_of,
    tube,
)


def share_inside(lungs: LungMask, shape: Shape, side: int | None = None) -> float:
    """Share of a shape that the mask holds."""
    wanted = shape(points_of(lungs.grid))
    held = lungs.labels > 0 if side is None else lungs.labels == side
    whole = np.count_nonzero(shape(points_of(STRAIGHT))) * STRAIGHT.voxel_volume_mm3
    return float(np.count_nonzero(wanted & held) * lungs.grid.voxel_volume_mm3 / whole)


def assert_both_lungs(lungs: LungMask, ml: float = LUNG_ML, tolerance: float = 0.1) -> None:
    assert lungs.volume_ml("right") == pytest.approx(ml, rel=tolerance)
    assert lungs.volume_ml("left") == pytest.approx(ml, rel=tolerance)
    assert lungs.side_at((-85, 0, 0)) == "right"
    assert lungs.side_at((85, 0, 0)) == "left"


@pytest.fixture(scope="module")
def plain() -> LungMask:
    return segment_lungs(chest())


def test_both_lungs_on_their_sides_with_their_volumes(plain: LungMask) -> None:
    assert_both_lungs(plain, tolerance=0.05)
    assert plain.volume_ml() == pytest.approx(plain.volume_ml("left") + plain.volume_ml("right"))
    assert share_inside(plain, RIGHT_LUNG, RIGHT) > 0.93
    assert share_inside(plain, LEFT_LUNG, LEFT) > 0.93


def test_trachea_and_main_bronchi_are_left_out(plain: LungMask) -> None:
    for start, end, radius in AIRWAY:
        medial = tuple(np.add(start, np.multiply(0.6, np.subtract(end, start))))
        assert share_inside(plain, tube(start if start == CARINA else (0, -5, 80), medial, radius)) < 0.1
    for point in ((0, -8, 60), CARINA, (0, 0, -30), (0, 75, 0), (-150, 0, 0), (0, -125, 0)):
        assert plain.side_at(point) is None


def test_side_is_told_a_few_mm_beyond_the_pleura_and_no_further(plain: LungMask) -> None:
    assert plain.side_at((-118 - 2, 0, 0)) == "right"
    assert plain.side_at((118 + 2, 0, 0)) == "left"
    assert plain.side_at((-118 - 9, 0, 0)) is None
    assert plain.side_at((1e5, 0, 0)) is None


def test_same_bytes_every_time() -> None:
    assert np.array_equal(segment_lungs(chest()).labels, segment_lungs(chest()).labels)


@pytest.mark.parametrize(
    ("order", "flips"), list(zip(permutations(range(3)), product((1, -1), repeat=3), strict=False))
)
def test_any_array_order_gives_the_same_lungs(plain: LungMask, order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    scan = chest()
    affine = scan.grid.affine.copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (scan.hu.shape[axis] - 1)
            affine[:3, axis] *= -1
    affine[:, :3] = affine[:, list(order)]
    hu = scan.hu[tuple(slice(None, None, f) for f in flips)].transpose(order)
    lungs = segment_lungs(CtVolume(hu, Grid(hu.shape, affine)))
    assert np.array_equal(lungs.labels, plain.labels)
    assert np.allclose(lungs.grid.affine, plain.grid.affine)


@pytest.mark.parametrize(("axis", "degrees"), [(2, 15), (2, -30), (0, 20), (1, 15)])
def test_oblique_scans(axis: int, degrees: float) -> None:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    a, b = [i for i in range(3) if i != axis]
    turn = np.eye(3)
    turn[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    grid = Grid.from_spacing((92, 100, 128), (3, 3, 3), turn @ (-190.5, -148.5, -136.5), turn @ np.eye(3)[:, ::-1])
    lungs = segment_lungs(chest(grid=grid))
    assert_both_lungs(lungs)
    assert lungs.side_at(CARINA) is None
    assert np.allclose(lungs.grid.direction_lps_zyx, grid.direction_lps_zyx)


@pytest.mark.parametrize("spacing_zyx_mm", [(1, 1.4, 1.4), (5, 0.9, 0.9), (8, 2, 2), (2, 4, 1)])
def test_spacings(spacing_zyx_mm: tuple[float, float, float]) -> None:
    shape = tuple(int(n * 3 / s) for n, s in zip((70, 76, 110), spacing_zyx_mm, strict=True))
    grid = Grid.from_spacing(shape, spacing_zyx_mm, (-165, -114, -105))
    assert_both_lungs(segment_lungs(chest(grid=grid)))


@pytest.mark.parametrize("center", [(-110, 0, 0), (68, 62, 0), (100, -40, 20), (-68, 0, 0)], ids=str)
def test_33_mm_nodule_is_inside_even_against_the_pleura(center: tuple[float, ...]) -> None:
    nodule = ball(center, 16.5)
    lung = RIGHT_LUNG if center[0] < 0 else LEFT_LUNG
    scan = chest((nodule, TISSUE))
    lungs = segment_lungs(scan)
    truth = nodule(points_of(scan.grid)) & lung(points_of(scan.grid))
    held = lungs.widened_on(scan.grid, 0.0)
    assert held[truth].mean() > 0.75
    assert lungs.widened_on(scan.grid, 3.0)[truth].mean() > 0.9
    assert lungs.widened_on(scan.grid, 6.0)[truth].all()
    assert lungs.side_at(center) == ("right" if center[0] < 0 else "left")


def test_consolidation_stays_inside() -> None:
    consolidation = ellipsoid((-80, 40, -20), (22, 30, 30))
    lungs = segment_lungs(chest((lambda p: consolidation(p) & RIGHT_LUNG(p), TISSUE)))
    assert share_inside(lungs, lambda p: consolidation(p) & RIGHT_LUNG(p), RIGHT) > 0.8
    assert_both_lungs(lungs)


def test_lung_in_two_pieces_is_one_side() -> None:
    lungs = segment_lungs(chest((lambda p: LEFT_LUNG(p) & box((0, -200, -30), (200, 200, 5))(p), TISSUE)))
    assert lungs.side_at((68, 0, 50)) == "left"
    assert lungs.side_at((68, 0, -60)) == "left"
    assert lungs.side_at((-68, 0, -60)) == "right"


def test_heart_and_liver_dome_stay_outside() -> None:
    heart, dome = ball((30, -25, -20), 40), ellipsoid((-68, 0, -90), (48, 65, 60))
    lungs = segment_lungs(chest((heart, TISSUE), (dome, TISSUE)))
    assert share_inside(lungs, ball((25, -25, -20), 25)) < 0.05
    assert share_inside(lungs, ellipsoid((-68, 0, -90), (40, 56, 50))) < 0.02


def test_table_and_its_foam_are_outside() -> None:
    table = [(box((-140, 108, -200), (140, 129, 200)), -100), (box((-136, 112, -200), (136, 125, 200)), -850)]
    for x in (-146, 146):
        table += [
            (box((x - 18, 58, -200), (x + 18, 100, 200)), -100),
            (box((x - 13, 63, -200), (x + 13, 95, 200)), -850),
        ]
    assert_both_lungs(segment_lungs(chest(*table)))


def test_arms_down() -> None:
    arms = [tube((x, 0, -200), (x, 0, 200), r) for x in (-168, 168) for r in (14, 7)]
    lungs = segment_lungs(chest(*zip(arms, (TISSUE, BONE) * 2, strict=True)))
    assert_both_lungs(lungs)
    one_arm = segment_lungs(chest(*zip(arms[:2], (TISSUE, BONE), strict=True)))
    assert_both_lungs(one_arm)


def test_scan_cropped_to_the_lungs() -> None:
    scan = chest(airway=False)
    lung = np.argwhere(RIGHT_LUNG(points_of(scan.grid)) | LEFT_LUNG(points_of(scan.grid)))
    low, high = lung.min(axis=0), lung.max(axis=0) + 1
    hu = scan.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    assert_both_lungs(segment_lungs(CtVolume(hu, scan.grid.cropped(low, hu.shape))))
    inside = scan.hu[:, low[1] : high[1], low[2] + 8 : high[2] - 8]
    cut = segment_lungs(CtVolume(inside, scan.grid.cropped((0, low[1], low[2] + 8), inside.shape)))
    assert cut.volume_ml("right") == pytest.approx(cut.volume_ml("left"), rel=0.05)
    assert cut.side_at((60, 0, 0)) == "left"


@pytest.mark.parametrize("padding", [-2000, -1024])
def test_filling_outside_the_reconstructed_circle_is_not_air(padding: int) -> None:
    circle = ellipsoid((0, 0, 0), (112, 112, 1e6))
    lungs = segment_lungs(chest((lambda p: ~circle(p), padding)))
    assert lungs.side_at((-85, 0, 0)) == "right"
    assert lungs.side_at((85, 0, 0)) == "left"
    assert share_inside(lungs, lambda p: ~ellipsoid((0, 0, 0), (120, 120, 1e6))(p)) == 0


@pytest.mark.parametrize(
    ("first", "last", "codes"),
    [
        (0, 88, []),
        (43, 88, ["lungs_cut_at_bottom", "unusual_lung_volume"]),
        (0, 52, ["lungs_cut_at_top"]),
        (34, 53, ["lungs_cut_at_bottom", "lungs_cut_at_top", "unusual_lung_volume"]),
    ],
)
def test_missing_apex_or_base_is_segmented_and_said(first: int, last: int, codes: list[str]) -> None:
    scan = chest()
    part = CtVolume(scan.hu[first:last], scan.grid.cropped((first, 0, 0), scan.hu[first:last].shape))
    lungs = segment_lungs(part)
    assert lungs.volume_ml("right") == pytest.approx(lungs.volume_ml("left"), rel=0.1)
    warnings = coverage_warnings(lungs, part)
    assert [w.code for w in warnings] == codes
    upside_down = Grid(part.hu.shape, part.grid.affine @ np.diag([-1.0, 1, 1, 1]))
    turned = CtVolume(part.hu, upside_down)
    swapped = {"lungs_cut_at_bottom": "lungs_cut_at_top", "lungs_cut_at_top": "lungs_cut_at_bottom"}
    assert {w.code for w in coverage_warnings(segment_lungs(turned), turned)} == {swapped.get(c, c) for c in codes}


def test_lungs_joined_at_the_anterior_junction_are_split_there() -> None:
    junction = box((-40, -45, -30), (40, -36, 30))
    lungs = segment_lungs(chest((junction, LUNG)))
    assert_both_lungs(lungs)
    assert lungs.side_at((-14, -40, 0)) == "right"
    assert lungs.side_at((14, -40, 0)) == "left"


def test_emphysema() -> None:
    lungs = segment_lungs(chest(lung_hu=-955))
    assert_both_lungs(lungs)
    assert lungs.side_at((0, -8, 60)) is None


@pytest.mark.parametrize(("lung", "side"), [(RIGHT_LUNG, "right"), (LEFT_LUNG, "left")])
def test_one_lung_absent(lung: Shape, side: str) -> None:
    scan = chest(lungs=(lung,))
    lungs = segment_lungs(scan)
    other = "left" if side == "right" else "right"
    assert lungs.volume_ml(side) == pytest.approx(LUNG_ML, rel=0.1)
    assert lungs.volume_ml(other) < 30
    missing = {w.code: w.values for w in coverage_warnings(lungs, scan)}["one_lung_missing"]
    assert missing["side"] == other


def test_one_lung_collapsed_and_the_other_across_the_midline() -> None:
    collapsed, over_inflated = ellipsoid((85, 40, 0), (15, 20, 40)), ellipsoid((-55, 0, 0), (63, 70, 90))
    lungs = segment_lungs(chest(lungs=(over_inflated, collapsed), airway=False))
    assert lungs.volume_ml("right") == pytest.approx(4 / 3 * np.pi * 63 * 70 * 90 / 1000, rel=0.1)
    assert lungs.volume_ml("left") == pytest.approx(4 / 3 * np.pi * 15 * 20 * 40 / 1000, rel=0.3)


def test_bowel_and_stomach_gas_are_outside() -> None:
    dome = ellipsoid((68, 0, -90), (44, 60, 60))
    bubble, colon = ball((68, 0, -62), 18), ellipsoid((-40, -50, -110), (50, 15, 12))
    lungs = segment_lungs(chest((dome, TISSUE), (bubble, AIR), (colon, AIR)))
    assert lungs.side_at((68, 0, 30)) == "left"
    for gas in (bubble, colon):
        assert share_inside(lungs, gas) < 0.05


def test_airway_open_to_the_room() -> None:
    mouth = tube((0, -10, 118), (0, -130, 118), 12)
    lungs = segment_lungs(chest((mouth, AIR)))
    assert_both_lungs(lungs, tolerance=0.15)


@pytest.mark.parametrize(
    "scan",
    [
        chest(lungs=(), airway=False),
        chest(lungs=(ball((-60, 0, 0), 30),)),
        chest((ellipsoid((0, -20, 0), (90, 60, 60)), AIR), lungs=(), airway=False),
        CtVolume(np.full((20, 30, 30), AIR, np.int16), Grid.from_spacing((20, 30, 30), (5, 5, 5))),
        CtVolume(np.full((20, 30, 30), TISSUE, np.int16), Grid.from_spacing((20, 30, 30), (5, 5, 5))),
        CtVolume(np.zeros((1, 1, 1), np.int16), Grid.from_spacing((1, 1, 1))),
        CtVolume(np.full((2, 300, 3), 32767, np.int16), Grid.from_spacing((2, 300, 3), (0.1, 0.1, 0.1))),
    ],
    ids=["no lungs", "113 ml", "two litres of bowel gas", "air", "tissue", "one voxel", "tiny"],
)
def test_no_lungs(scan: CtVolume) -> None:
    with pytest.raises(NotChestCt) as refused:
        segment_lungs(scan)
    assert refused.value.code == "no_lungs"
    assert 0 <= refused.value.values["lung_volume_ml"] < refused.value.values["minimum_lung_volume_ml"]


def test_coarse_mask_agrees_with_the_fine_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = chest(
        (ball((-110, 0, 0), 16.5), TISSUE), grid=Grid.from_spacing((140, 140, 225), (1.5, 1.5, 1.5), (-168, -105, -105))
    )
    coarse = segment_lungs(scan).widened_on(scan.grid, 0)
    monkeypatch.setattr("app.imaging.lungs.WORKING_SPACING_MM", 1.5)
    fine = segment_lungs(scan).widened_on(scan.grid, 0)
    assert 2 * np.count_nonzero(coarse & fine) / (np.count_nonzero(coarse) + np.count_nonzero(fine)) > 0.96
