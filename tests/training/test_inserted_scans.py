"""Whole scans with inserted nodules: they lie in the scan's own voxels where the truth says."""

import numpy as np
import pytest

from app.imaging.volume import CtVolume, Grid
from training.inserted_scans import inserted_scan

from tests.training.test_insertion import bank, ellipsoid_background  # isort: skip


def same_scan(background, spacing_zyx_mm, flip_x):
    """The background's scan at another spacing, nearest voxel; columns may run to the patient's right."""
    shape = tuple(int(n / s) for n, s in zip(background.hu.shape, spacing_zyx_mm, strict=True))
    direction = np.eye(3)[:, ::-1] @ np.diag([1.0, 1.0, -1.0 if flip_x else 1.0])
    origin = (background.hu.shape[2] - 1.0, 0.0, 0.0) if flip_x else (0.0, 0.0, 0.0)
    grid = Grid.from_spacing(shape, spacing_zyx_mm, origin, direction)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    there = np.rint(background.grid.to_index(grid.to_patient(index))).astype(int)
    there = np.clip(there, 0, np.asarray(background.hu.shape) - 1)
    return CtVolume(background.hu[tuple(there.T)].reshape(shape), grid)


@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("spacing_zyx_mm", [(2.5, 0.7, 0.7), (1.0, 0.8, 0.8)])
def test_nodules_lie_where_the_truth_says(spacing_zyx_mm, flip_x):
    background = ellipsoid_background((80, 80, 80))
    volume = same_scan(background, spacing_zyx_mm, flip_x)
    scan, truths = inserted_scan(volume, background, bank(), 3, np.random.default_rng(1))
    assert truths
    change = scan.hu.astype(float) - volume.hu
    assert change.max() > 400
    explained = np.zeros(volume.hu.shape, bool)
    index = np.argwhere(np.ones(volume.hu.shape, bool))
    positions = volume.grid.to_patient(index)
    for truth in truths:
        near = (np.linalg.norm(positions - truth.center_lps_mm, axis=1) < truth.diameter_mm).reshape(volume.hu.shape)
        weight = np.where(near, np.maximum(change, 0), 0)
        assert weight.max() > 150
        center = (positions * weight.reshape(-1, 1)).sum(axis=0) / weight.sum()
        assert np.linalg.norm(center - truth.center_lps_mm) < max(1.5, truth.diameter_mm / 4)
        explained |= near
    assert np.abs(change[~explained]).max() < 250


def test_the_scan_itself_is_left_alone_and_the_same_seed_gives_the_same_copy():
    background = ellipsoid_background((64, 64, 64))
    volume = same_scan(background, (1.0, 1.0, 1.0), flip_x=False)
    before = volume.hu.copy()
    first, second = (inserted_scan(volume, background, bank(), 2, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(volume.hu, before)
    assert np.array_equal(first[0].hu, second[0].hu)
    assert first[1] == second[1]
