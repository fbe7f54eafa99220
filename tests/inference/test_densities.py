"""What an outline encloses, in HU."""

import numpy as np
import pytest

from app.imaging.volume import CtVolume, Grid
from app.inference import measurements
from app.inference.densities import SOLID_HU, calcium_mm3, densities, has_fat, section, solid_component
from app.inference.findings import NoduleMask
from app.inference.nodule_type import density_signs, is_spiculated, nodule_kind
from app.phantom.noise import correlated_slices

SHAPE, SPACING = (31, 61, 61), (1.0, 0.7, 0.7)
NO_CALCIUM = {"texture": 0.9, "calcification": 0.5}
"""Attributes under which HU alone decide."""


def grid(spacing=SPACING) -> Grid:
    return Grid.from_spacing(SHAPE, spacing, (3.0, -4.0, 5.0))


def distance_mm(spacing=SPACING) -> np.ndarray:
    points = grid(spacing).to_patient(np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3))
    middle = grid(spacing).to_patient([n // 2 for n in SHAPE])
    return np.linalg.norm(points - middle, axis=1).reshape(SHAPE)


def within(hu: np.ndarray, radius_mm: float, *, noise_hu: float = 0.0, seed: int = 0, spacing=SPACING):
    """Everything within ``radius_mm`` of the middle is outlined."""
    if noise_hu:
        noise = correlated_slices(np.random.default_rng(seed), SHAPE, spacing[1:])
        hu = hu + noise_hu * np.stack(list(noise))
    mask = NoduleMask(distance_mm(spacing) <= radius_mm, grid(spacing))
    return section(mask, CtVolume(np.rint(hu).astype(np.int16), grid(spacing)))


def blurred_ball(inner_hu: float, radius_mm: float, edge_mm: float = 0.7, lung_hu: float = -860.0, spacing=SPACING):
    """HU of a ball whose edge is as soft as a scanner's, and softer across thick slices."""
    share = np.clip(0.5 - (distance_mm(spacing) - radius_mm) / (2 * edge_mm), 0, 1)
    return lung_hu + share * (inner_hu - lung_hu)


def test_extremes_mass_and_mean_are_those_of_the_outlined_voxels():
    hu = np.full(SHAPE, -900.0)
    hu[15, 30, 30], hu[15, 30, 31] = 100.0, -500.0
    found = densities(section(NoduleMask(hu > -600, grid()), CtVolume(hu.astype(np.int16), grid())))
    assert (found.min_hu, found.max_hu, found.mean_hu) == (-500.0, 100.0, -200.0)
    assert found.mass_mg == pytest.approx((1.1 + 0.5) * 0.49)


def test_lighter_than_air_has_no_negative_mass():
    found = densities(within(np.full(SHAPE, -1024.0), 3.0))
    assert found.mass_mg == 0.0


@pytest.mark.parametrize("core_mm", [4.0, 7.0, 10.0])
def test_the_solid_component_is_as_large_as_the_core(core_mm):
    hu = np.maximum(blurred_ball(-600.0, 8.0), blurred_ball(30.0, core_mm / 2, lung_hu=-600.0))
    hu[distance_mm() > 9] = -860
    solid = solid_component(within(hu, 8.0, noise_hu=20.0))
    assert measurements.axes_mm(solid).mean_mm == pytest.approx(core_mm, abs=1.2)


def test_ground_glass_has_no_solid_component():
    assert solid_component(within(blurred_ball(-550.0, 8.0), 8.0, noise_hu=40.0)) is None


@pytest.mark.parametrize(("hu", "there"), [(SOLID_HU + 1, True), (SOLID_HU - 1, False)])
def test_solid_begins_at_its_threshold(hu, there):
    assert (solid_component(within(np.full(SHAPE, hu), 5.0)) is not None) == there


@pytest.mark.parametrize("spacing", [SPACING, (2.5, 0.7, 0.7)], ids=["thin", "thick"])
@pytest.mark.parametrize("radius_mm", [2.5, 4.0, 8.0, 11.0])
@pytest.mark.parametrize(("inner_hu", "noise_hu"), [(10.0, 0.0), (40.0, 40.0), (70.0, 20.0), (-550.0, 40.0)])
def test_soft_tissue_ground_glass_and_noise_are_neither_calcium_nor_fat(spacing, radius_mm, inner_hu, noise_hu):
    ball = blurred_ball(inner_hu, radius_mm, 0.7 if spacing is SPACING else 1.5, spacing=spacing)
    assert density_signs(within(ball, radius_mm, noise_hu=noise_hu, spacing=spacing), NO_CALCIUM) == ()


def test_the_shell_between_core_and_haze_is_no_fat():
    hu = np.maximum(blurred_ball(-600.0, 10.0), blurred_ball(40.0, 5.0, 2.5, lung_hu=-600.0))
    assert not has_fat(within(hu, 10.0))


@pytest.mark.parametrize("noise_hu", [0.0, 20.0])
def test_a_lump_of_fat_is_found(noise_hu):
    hu = blurred_ball(30.0, 9.0)
    hu[distance_mm() <= 4.0] = -80.0
    assert density_signs(within(hu, 9.0, noise_hu=noise_hu), NO_CALCIUM) == ("fat",)


@pytest.mark.parametrize("noise_hu", [0.0, 30.0])
def test_a_lump_of_calcium_is_found_and_measured(noise_hu):
    hu = blurred_ball(30.0, 6.0)
    hu[distance_mm() <= 3.0] = 500.0
    found = within(hu, 6.0, noise_hu=noise_hu)
    assert density_signs(found, NO_CALCIUM) == ("calcification",)
    assert calcium_mm3(found) == pytest.approx(4 / 3 * np.pi * 3**3, rel=0.3)


def test_calcium_needs_the_network_to_agree_where_it_has_a_word():
    hu = blurred_ball(30.0, 6.0)
    hu[distance_mm() <= 3.0] = 500.0
    found = within(hu, 6.0)
    assert density_signs(found, {"calcification": 0.84}) == ("calcification",)
    assert density_signs(found, {"calcification": 0.85}) == ()
    assert density_signs(found, {}) == ("calcification",)


@pytest.mark.parametrize(
    ("texture", "kind"),
    [(0.0, "ground_glass"), (0.53, "ground_glass"), (0.54, "part_solid"), (0.81, "part_solid"), (0.82, "solid")],
)
def test_texture_decides_the_type_from_both_sides_of_each_threshold(texture, kind):
    assert nodule_kind({"texture": texture}, ()) == kind


def test_calcium_comes_before_texture_and_no_attribute_gives_no_answer():
    assert nodule_kind({"texture": 0.1}, ("calcification",)) == "calcified"
    assert nodule_kind({"mean_intensity": 0.4}, ()) is None
    assert is_spiculated({"mean_intensity": 0.4}) is None
    assert (is_spiculated({"spiculation": 0.21}), is_spiculated({"spiculation": 0.20})) == (True, False)
