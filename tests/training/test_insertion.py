"""Nodules put into lungs: what is recorded is what is in the array."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from app.imaging.volume import Grid
from training.insertion import MIN_VISIBLE_SHARE, insert, populate
from training.lung_background import Background, Finding, NoiseModel, distance_to_findings, estimate_noise
from training.nodule_bank import NoduleBank
from training.nodule_blocks import BLOCK_SPACING_MM, MARGIN_MM, Nodule, soft_volume_mm3, sphere_diameter_mm
from training.placement import SITE_SHARES, choose_site, draw_diameter_mm, draw_site

LUNG_HU = -850.0


def ball(diameter_mm=8.0, *, core_hu=30.0, stretch=1.0, **facts):
    """A nodule as the bank holds it: a ball, or an ellipsoid ``stretch`` times longer along x."""
    radius = int(np.ceil((diameter_mm / 2 * stretch + MARGIN_MM) / BLOCK_SPACING_MM))
    axis = np.arange(-radius, radius + 1) * BLOCK_SPACING_MM
    away = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + (axis / stretch) ** 2)
    distance = away - diameter_mm / 2
    hu = LUNG_HU + (core_hu - LUNG_HU) * np.clip(0.5 - distance / BLOCK_SPACING_MM, 0, 1)
    signed = distance.astype(np.float16)
    return Nodule(
        hu=hu.astype(np.int16),
        distance_mm=signed,
        diameter_mm=sphere_diameter_mm(soft_volume_mm3(signed)),
        kind="solid",
        **{"lung_hu": LUNG_HU, "patient_id": "LIDC-IDRI-0900"} | facts,
    )


def lung(shape=(48, 48, 48), value=LUNG_HU):
    return np.full(shape, value, np.float32)


def ellipsoid_background(shape=(64, 72, 80), findings=(), noise_hu=0.0):
    """One big lung with a vessel through it, its wall around it, and nothing of the outside world."""
    grid = Grid.from_spacing(shape)
    z, y, x = (np.linspace(-1, 1, n) for n in shape)
    in_lungs = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < 0.95
    vessels = np.zeros(shape, bool)
    vessels[:, shape[1] // 2 - 1 : shape[1] // 2 + 2, shape[2] // 2 - 1 : shape[2] // 2 + 2] = True
    hu = np.where(in_lungs & ~vessels, LUNG_HU, 30.0)
    hu += np.random.default_rng(5).normal(0.0, noise_hu, shape)
    return Background(
        hu=hu.astype(np.int16),
        in_lungs=in_lungs,
        depth_mm=ndimage.distance_transform_edt(in_lungs).astype(np.float16),
        vessel_mm=ndimage.distance_transform_edt(~vessels).astype(np.float16),
        own_mm=distance_to_findings(grid, findings),
        grid=grid,
        series_uid="1.2.3",
        slice_spacing_mm=1.0,
        noise=NoiseModel(np.zeros((8, 8, 8), np.float32)),
        lung_voxels=np.flatnonzero(in_lungs).astype(np.int32),
    )


def bank():
    wall = {"wall_zyx": (0.0, 0.0, 1.0), "wall_distance_mm": 3.0}
    plain = [ball(d, patient_id=f"LIDC-IDRI-09{i:02d}") for i, d in enumerate((4.0, 6.0, 9.0, 14.0, 22.0))]
    return NoduleBank((*plain, ball(7.0, patient_id="LIDC-IDRI-0950", **wall)))


@settings(max_examples=15, deadline=None)
@given(
    diameter=st.floats(4.0, 20.0),
    offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    stretch=st.floats(1.0, 1.6),
    seed=st.integers(0, 1000),
)
def test_recorded_centre_diameter_and_mask_are_those_of_the_array(diameter, offset, stretch, seed):
    volume = lung((56, 56, 56))
    center = np.asarray(offset) + 27.5
    inserted = insert(volume, ball(diameter, stretch=stretch), center, np.random.default_rng(seed))
    changed = (volume - LUNG_HU) / (30.0 - LUNG_HU)
    assert np.allclose(inserted.center_zyx, ndimage.center_of_mass(changed), atol=0.3)
    assert sphere_diameter_mm(changed.sum()) == pytest.approx(inserted.diameter_mm, rel=0.1)
    mask = inserted.mask_in(volume.shape)
    assert np.median(changed[mask]) > 0.7
    assert changed[~ndimage.binary_dilation(mask, iterations=3)].max() < 0.01


@settings(max_examples=15, deadline=None)
@given(
    own=st.floats(6.0, 16.0),
    ratio=st.floats(0.7, 1.4),
    seed=st.integers(0, 1000),
    slice_spacing=st.sampled_from([1.0, 2.5]),
)
def test_diameter_is_the_one_asked_for(own, ratio, seed, slice_spacing):
    asked = own * ratio
    nodule = ball(own, slice_spacing_mm=slice_spacing)
    inserted = insert(lung(), nodule, (24, 24, 24), np.random.default_rng(seed), diameter_mm=asked)
    assert inserted.diameter_mm == pytest.approx(asked, rel=0.1)


def test_noise_in_the_nodule_is_the_scans():
    rng = np.random.default_rng(0)
    noise = NoiseModel(ndimage.gaussian_filter(rng.normal(0, 120.0, (64, 64, 64)), 0.7).astype(np.float32))
    volume = lung((64, 64, 64)) + noise.sample((64, 64, 64), rng)
    inserted = insert(volume, ball(24.0), (32, 32, 32), rng, noise=noise)
    core = ndimage.binary_erosion(inserted.mask_in(volume.shape), iterations=3)
    assert volume[core].std() == pytest.approx(noise.std_hu, rel=0.15)


def test_a_nodule_without_a_noise_model_is_smooth():
    volume = lung()
    inserted = insert(volume, ball(16.0), (24, 24, 24), np.random.default_rng(0))
    assert volume[ndimage.binary_erosion(inserted.mask_in(volume.shape), iterations=3)].std() < 5


def test_noise_estimate_recovers_spread_and_grain():
    rng = np.random.default_rng(1)
    field = ndimage.gaussian_filter(rng.normal(size=(72, 72, 72)), (1.0, 0.6, 0.6))
    field *= 40.0 / field.std()
    noise = estimate_noise((LUNG_HU + field).astype(np.int16), np.ones(field.shape, bool))
    assert noise.std_hu == pytest.approx(40.0, rel=0.15)
    for axis, tolerance in ((0, 0.12), (2, 0.12)):
        lag = [np.mean(a * np.roll(a, 1, axis)) / a.var() for a in (field, noise.tile_hu)]
        assert lag[1] == pytest.approx(lag[0], abs=tolerance)


def test_host_vessels_stay():
    volume = lung()
    volume[:, 24, 24] = 60.0
    insert(volume, ball(10.0, core_hu=-500.0), (24, 24, 24), np.random.default_rng(0))
    assert (volume[:, 24, 24] >= 60.0).all()


@pytest.mark.parametrize("center", [(0, 0, 0), (-3, 24, 24), (24, 47, 50), (200, 24, 24)])
def test_partly_or_wholly_outside(center):
    volume = lung()
    inserted = insert(volume, ball(12.0), center, np.random.default_rng(0), diameter_mm=12.0)
    assert np.allclose(inserted.center_zyx, center, atol=0.5)
    assert inserted.diameter_mm == pytest.approx(12.0, rel=0.1)
    assert inserted.mask_in(volume.shape).sum() == pytest.approx((volume > -410).sum(), rel=0.05)


def test_what_lies_outside_the_lung_is_neither_mask_nor_changed():
    volume = lung()
    in_lungs = np.ones(volume.shape, bool)
    in_lungs[:, :, 26:] = False
    inserted = insert(volume, ball(14.0), (24, 24, 24), np.random.default_rng(0), in_lungs=in_lungs)
    assert not (inserted.mask_in(volume.shape) & ~in_lungs).any()
    assert np.ptp(volume[:, :, 29:]) == 0
    assert inserted.center_zyx[2] < 23.5
    assert inserted.diameter_mm < 13.5


def test_wall_side_is_turned_to_the_wall():
    half = ball(12.0, wall_zyx=(0.0, 0.0, 1.0), wall_distance_mm=4.0)
    lopsided = half.hu.copy()
    lopsided[:, :, lopsided.shape[2] // 2 + 3 :] = LUNG_HU
    half = Nodule(**{**vars(half), "hu": lopsided})
    for direction in np.eye(3):
        volume = lung()
        insert(volume, half, (24, 24, 24), np.random.default_rng(3), wall_direction_zyx=direction)
        shift = np.asarray(ndimage.center_of_mass(volume - LUNG_HU)) - 24
        assert shift @ direction < -0.5


def test_same_seed_same_voxels():
    background, nodules = ellipsoid_background(), bank()
    first, second = (populate(background, nodules, 4, np.random.default_rng(7)) for _ in range(2))
    other, _ = populate(background, nodules, 4, np.random.default_rng(8))
    assert np.array_equal(first[0], second[0])
    assert [n.center_zyx for n in first[1]] == [n.center_zyx for n in second[1]]
    assert not np.array_equal(first[0], other)


def test_nothing_near_own_findings_and_nothing_overlaps():
    background = ellipsoid_background(findings=[Finding((40.0, 36.0, 32.0), 30.0)])
    assert 0.05 < background.avoid[background.in_lungs].mean() < 0.6
    for seed in range(6):
        hu, nodules = populate(background, bank(), 6, np.random.default_rng(seed))
        masks = sum(n.mask_in(hu.shape).astype(int) for n in nodules)
        assert len(nodules) >= 2
        assert masks.max() == 1
        assert not (masks > 0)[background.avoid].any()
        assert not (masks > 0)[~background.in_lungs].any()


def test_populating_leaves_the_background_alone():
    background = ellipsoid_background()
    before = background.hu.copy()
    populate(background, bank(), 3, np.random.default_rng(0))
    assert np.array_equal(background.hu, before)


def test_a_box_is_cut_out_with_its_nodules_in_its_own_voxels():
    background = ellipsoid_background()
    box = ((10, 12, 20), (50, 60, 70))
    hu, nodules = populate(background, bank(), 3, np.random.default_rng(2), within=box)
    assert hu.shape == (40, 48, 50)
    rise = hu - background.hu[10:50, 12:60, 20:70]
    assert nodules
    for nodule in nodules:
        assert rise[nodule.mask_in(hu.shape)].mean() == pytest.approx(nodule.contrast_hu, rel=0.02)
        assert (np.asarray(nodule.center_zyx) > 0).all()
        assert (np.asarray(nodule.center_zyx) < hu.shape).all()


def test_sites_are_what_they_are_called():
    background, rng = ellipsoid_background(), np.random.default_rng(0)
    for _ in range(20):
        free = choose_site(background, 6.0, [], rng, site="free")
        vessel = choose_site(background, 6.0, [], rng, site="vessel")
        pleura = choose_site(background, 6.0, [], rng, site="pleura")
        assert background.depth_mm[free] > 3.0
        assert background.vessel_mm[vessel] <= 3.5
        assert background.depth_mm[pleura] < 3.0


def test_at_their_own_size_every_nodule_is_as_likely_and_none_is_rescaled():
    nodules = NoduleBank(tuple(ball(d, patient_id=f"LIDC-IDRI-09{i:02d}") for i, d in enumerate((4.0, 6.0, 9.0))))
    placed = [
        nodule
        for seed in range(20)
        for nodule in populate(ellipsoid_background(), nodules, 2, np.random.default_rng(seed), own_size=True)[1]
    ]
    own_mm = {nodule.patient_id: nodule.diameter_mm for nodule in nodules.nodules}
    for nodule in placed:
        assert nodule.diameter_mm == pytest.approx(own_mm[nodule.patient_id], rel=0.05)
    counts = [sum(nodule.patient_id == patient for nodule in placed) for patient in own_mm]
    assert sum(counts) >= 30
    assert min(counts) >= 5


def test_what_a_lung_shows_of_a_nodule_is_all_in_clear_lung_and_little_in_the_wall():
    clear = insert(lung(), ball(10.0), (24, 24, 24), np.random.default_rng(0))
    assert clear.visible_share == pytest.approx(1.0, abs=0.05)
    in_lungs = np.ones((48, 48, 48), bool)
    in_lungs[:, :, 22:] = False
    mostly_outside = insert(lung(), ball(10.0), (24, 24, 24), np.random.default_rng(0), in_lungs=in_lungs)
    assert mostly_outside.visible_share < MIN_VISIBLE_SHARE
    swallowed = insert(lung(value=30.0), ball(10.0), (24, 24, 24), np.random.default_rng(0))
    assert swallowed.visible_share == pytest.approx(0.0, abs=0.05)


def test_a_nodule_that_a_thick_wall_would_swallow_is_not_put():
    """The lung mask reaches 7 mm into soft tissue, as it does where the wall is blurred: nothing would be seen."""
    wall = {"wall_zyx": (0.0, 0.0, 1.0), "wall_distance_mm": 3.0}
    at_wall = NoduleBank((ball(7.0, **wall),))
    background = ellipsoid_background()
    hu = np.where(background.depth_mm < 7.0, 30, background.hu).astype(np.int16)
    thick = dataclasses.replace(background, hu=hu)
    seen = populate(background, at_wall, 2, np.random.default_rng(0), own_size=True)
    hidden = populate(thick, at_wall, 2, np.random.default_rng(0), own_size=True)
    assert {nodule.site for nodule in seen[1]} == {"pleura"}
    assert hidden[1] == []
    assert np.array_equal(hidden[0], hu)


def test_no_place_is_none():
    background = ellipsoid_background(findings=[Finding((40.0, 36.0, 32.0), 200.0)])
    assert choose_site(background, 6.0, [], np.random.default_rng(0)) is None
    assert populate(background, bank(), 3, np.random.default_rng(0))[1] == []


def test_diameters_cover_luna16():
    rng = np.random.default_rng(0)
    drawn = np.asarray([draw_diameter_mm(rng) for _ in range(4000)])
    assert drawn.min() >= 3.0
    assert drawn.max() <= 30.0
    assert np.median(drawn) == pytest.approx(6.6, abs=0.5)
    assert np.mean((drawn > 4) & (drawn < 10)) > 0.6
    assert np.mean(drawn > 15) > 0.07


def test_sites_by_their_shares_and_no_small_ones_at_the_pleura():
    rng = np.random.default_rng(0)
    drawn = [draw_site(rng, 8.0) for _ in range(4000)]
    for site, share in SITE_SHARES.items():
        assert drawn.count(site) / 4000 == pytest.approx(share, abs=0.03)
    assert "pleura" not in {draw_site(rng, 3.5) for _ in range(200)}
