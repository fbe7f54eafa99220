"""Augmentations change what they say and nothing else."""

import numpy as np
import pytest
from scipy import ndimage

from training.augment import (
    change_kernel,
    lower_dose,
    shift_density,
    thick_slices,
    thicken_slices,
    turned,
    vary_scanner,
    warped,
)

EFFECTS = (change_kernel, lower_dose, thicken_slices, shift_density, vary_scanner)


def block(side=32):
    """Lung with a ball of tissue in it."""
    z, y, x = np.meshgrid(*[np.arange(side) - side // 2] * 3, indexing="ij")
    hu = np.where(z**2 + y**2 + x**2 < 36, 30.0, -850.0)
    return ndimage.gaussian_filter(hu, 0.7).astype(np.float32)


@pytest.mark.parametrize("effect", EFFECTS)
def test_deterministic_by_seed_and_never_in_place(effect):
    hu = block()
    before = hu.copy()
    first, second = (effect(hu, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(hu, before)
    assert first.dtype == np.float32
    assert first.shape == hu.shape
    assert np.isfinite(first).all()


@pytest.mark.parametrize("effect", EFFECTS)
def test_different_seeds_differ(effect):
    results = [effect(block(), np.random.default_rng(seed)) for seed in range(8)]
    assert max(np.abs(r - results[0]).max() for r in results) > 5


@pytest.mark.parametrize("effect", EFFECTS)
def test_structures_stay_where_they_are(effect):
    for seed in range(5):
        changed = effect(block(), np.random.default_rng(seed))
        center = ndimage.center_of_mass(np.clip(ndimage.gaussian_filter(changed, 1.5) + 550, 0, None))
        assert np.allclose(center, 16, atol=0.75)


@pytest.mark.parametrize("effect", [change_kernel, lower_dose, shift_density])
def test_no_strength_no_change(effect):
    assert np.allclose(effect(block(), np.random.default_rng(0), 0.0), block(), atol=0.01)


def test_kernels_both_sharpen_and_blur():
    sharpness = [np.abs(np.diff(change_kernel(block(), np.random.default_rng(s)), axis=2)).max() for s in range(12)]
    own = np.abs(np.diff(block(), axis=2)).max()
    assert min(sharpness) < 0.9 * own
    assert max(sharpness) > 1.1 * own


def test_dose_adds_noise_of_no_mean():
    added = [lower_dose(block(), np.random.default_rng(s)) - block() for s in range(12)]
    assert max(a.std() for a in added) > 20
    assert max(a.std() for a in added) <= 61
    assert all(abs(a.mean()) < 3 for a in added)


@pytest.mark.parametrize("thickness", [2.0, 2.5, 3.7, 5.0])
def test_thick_slices_blur_along_z_only_and_keep_a_ramp(thickness):
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (40, 4, 4)).copy()
    back = thick_slices(ramp, thickness, 1.3)
    margin = int(2 * thickness)
    assert np.allclose(back[margin:-margin], ramp[margin:-margin], atol=0.35)
    across = np.broadcast_to(np.arange(40, dtype=np.float32), (40, 4, 40)).copy()
    assert np.allclose(thick_slices(across, thickness), across, atol=1e-3)
    spike = np.zeros((41, 1, 1), np.float32)
    spike[20] = 100.0
    assert thick_slices(spike, thickness).max() < 100.0 / thickness + 1


def test_density_moves_lung_not_tissue():
    for seed in range(8):
        change = shift_density(block(), np.random.default_rng(seed)) - block()
        tissue = change[14:19, 14:19, 14:19]
        assert abs(tissue.mean()) < 35
    spread = [(shift_density(block(), np.random.default_rng(s)) - block())[0].mean() for s in range(12)]
    assert np.ptp(spread) > 40


@pytest.mark.parametrize("swap_axes", [False, True])
def test_turned_takes_points_along(swap_axes):
    volume = np.zeros((24, 24, 24), np.float32)
    points = np.asarray([(3, 5, 7), (20, 2, 11)])
    volume[tuple(points.T)] = (1.0, 2.0)
    for seed in range(10):
        (moved, same), centers = turned([volume, volume > 0], points, np.random.default_rng(seed), swap_axes=swap_axes)
        assert moved[tuple(centers.astype(int).T)].tolist() == [1.0, 2.0]
        assert same.sum() == 2


def test_warp_takes_the_mask_along_and_hardly_changes_size():
    hu = block(40)
    mask = hu > -400
    for seed in range(4):
        moved, moved_mask = warped(hu, mask, np.random.default_rng(seed))
        assert moved_mask.sum() == pytest.approx(mask.sum(), rel=0.35)
        assert np.median(moved[ndimage.binary_erosion(moved_mask)]) > 0
        assert moved[~ndimage.binary_dilation(moved_mask, iterations=3)].max() < -600
    assert warped(hu, None, np.random.default_rng(0))[1] is None
