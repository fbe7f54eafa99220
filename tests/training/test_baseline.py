"""The baseline finds balls, learns from its own patients only, and is the same again from the same seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.imaging.lungs import LungMask
from app.imaging.preprocessing import PreprocessingSpec
from app.imaging.volume import Grid, PreparedVolume
from training.baseline import Budget, load_or_train, most_probable, train_baseline
from training.config import TrainingConfig
from training.crops import CACHE_SIZE_PX, CandidatePatches
from training.log_candidates import find_blobs
from training.splits import SplitError, split_patients

SPEC = PreprocessingSpec()
LUNG_HU = -850.0
TINY = Budget(steps=30, batch=16, nodules_per_batch=8, widths=(8, 8, 8, 8), bfloat16=False)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Candidates


def lung_with_balls(balls, shape=(72, 80, 240)):
    """Noisy lung with two vessels and soft-edged balls (centre z, y, x, diameter, HU above lung), at 1 mm."""
    grid = Grid.from_spacing(shape)
    z, y, x = (np.arange(n, dtype=np.float32) for n in shape)
    hu = np.full(shape, LUNG_HU, np.float32)
    for vessel_y in (8, 70):
        away = np.hypot(z[:, None] - 8, y - vessel_y)
        hu += 850 * np.clip(2.5 - away, 0, 1)[:, :, None]
    for *center, diameter, contrast in balls:
        away = np.sqrt((z[:, None, None] - center[0]) ** 2 + (y[:, None] - center[1]) ** 2 + (x - center[2]) ** 2)
        hu += contrast * np.clip(diameter / 2 - away + 0.5, 0, 1)
    hu += np.random.default_rng(0).normal(0, 25, shape)
    low, high = SPEC.window_hu
    values = np.clip((hu - low) / (high - low), 0, 1).astype(np.float32)
    coarse = Grid.from_spacing(tuple(n // 4 for n in shape), (4.0, 4.0, 4.0), (1.5, 1.5, 1.5))
    return PreparedVolume(values, grid, SPEC.digest), LungMask(np.ones(coarse.shape_zyx, np.uint8), coarse)


def test_balls_of_4_to_20_mm_are_found_within_1_5_mm():
    balls = [
        (36, 40, x, diameter, contrast)
        for x, diameter, contrast in (
            (14, 4, 850),
            (34, 6, 850),
            (60, 8, 300),
            (90, 12, 850),
            (124, 15, 300),
            (168, 20, 850),
        )
    ]
    prepared, lungs = lung_with_balls(balls)
    found = find_blobs(prepared, lungs, SPEC)
    for z, y, x, diameter, contrast in balls:
        distance = np.linalg.norm(found.center_lps_mm - (x, y, z), axis=1)
        nearest = int(distance.argmin())
        assert distance[nearest] < 1.5
        assert 0.6 < found.diameter_mm[nearest] / diameter < 1.7
        assert 0.4 * contrast < found.response_hu[nearest] < contrast


def test_what_is_too_faint_or_outside_the_lungs_is_no_candidate():
    prepared, lungs = lung_with_balls([(36, 40, 60, 10, 100), (36, 40, 180, 10, 850)])
    centers = find_blobs(prepared, lungs, SPEC).center_lps_mm
    assert np.linalg.norm(centers - (60, 40, 36), axis=1).min() > 5
    assert np.linalg.norm(centers - (180, 40, 36), axis=1).min() < 1.5
    half = lungs.labels.copy()
    half[:, :, lungs.grid.shape_zyx[2] // 2 :] = 0
    centers = find_blobs(prepared, LungMask(half, lungs.grid), SPEC).center_lps_mm
    assert len(centers)
    assert centers[:, 0].max() < 125


def test_of_candidates_in_one_ball_the_most_probable_stays():
    centers = np.array([[2.0, 0, 0], [3, 0, 0], [5, 0, 0], [40, 0, 0]])
    kept = most_probable(centers, np.array([4.0, 1, 4, 4]), np.array([0.5, 0.9, 0.7, 0.1]))
    assert kept.tolist() == [1, 2, 3]  # the first lies in the third's ball, though not in the second's


# The CNN


def discs_and_bars():
    """Patches of 20 patients: nodules are discs, the others bright bars."""
    rng = np.random.default_rng(1)
    crops = rng.integers(0, 40, (80, CACHE_SIZE_PX, CACHE_SIZE_PX)).astype(np.uint8)
    is_nodule = np.arange(80) % 2 == 0
    row, column = np.mgrid[:CACHE_SIZE_PX, :CACHE_SIZE_PX] - CACHE_SIZE_PX // 2
    for n, crop in enumerate(crops):
        size = rng.uniform(4, 9)
        crop[np.hypot(row, column) < size if is_nodule[n] else np.abs(row) < size] += 150
    patients = np.array([f"P{n % 20:02d}" for n in range(80)])
    return CandidatePatches(crops, is_nodule, np.where(is_nodule, np.arange(80), -1), patients, patients)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    # 2 mm, so that a scan takes a fraction of a second
    return TrainingConfig(
        name="tiny", runs=tmp_path_factory.mktemp("runs"), preprocessing=PreprocessingSpec(spacing_mm=2.0)
    )


@pytest.fixture(scope="module")
def split():
    return split_patients([f"P{n:02d}" for n in range(18)], 3, 5)


@pytest.fixture(scope="module")
def baseline(config, split):
    return train_baseline(config, discs_and_bars(), split, 0, TINY)


def weights(trained):
    return torch.cat([value.flatten().double() for value in trained.network.state_dict().values()])


def test_it_learns_and_the_same_seed_gives_the_same_weights(config, split, baseline):
    assert baseline.auroc.value > 0.9
    assert baseline.auroc.n == 4 * len(split.patients(0))
    again = train_baseline(config, discs_and_bars(), split, 0, TINY)
    assert torch.equal(weights(again), weights(baseline))
    other = train_baseline(config.model_copy(update={"seed": 1}), discs_and_bars(), split, 0, TINY)
    assert not torch.equal(weights(other), weights(baseline))


def test_neither_the_fold_nor_patients_outside_the_split_are_learnt_from(config, split, baseline):
    patches = discs_and_bars()
    unseen = np.isin(patches.patient_id, [*split.patients(0), "P18", "P19"])
    patches.crops[unseen] = 255
    assert torch.equal(weights(train_baseline(config, patches, split, 0, TINY)), weights(baseline))
    kept_out = config.model_copy(update={"data": config.data.model_copy(update={"held_out_patients": ("P03",)})})
    with pytest.raises(SplitError, match="P03"):
        train_baseline(kept_out, patches, split, 0, TINY)


def test_a_stored_baseline_is_used_again_unless_it_is_of_another_fold_or_budget(config, split, tmp_path):
    short = replace(TINY, steps=2)
    first = load_or_train(config, discs_and_bars(), split, 0, tmp_path, short)
    blank = discs_and_bars()
    blank.crops[:] = 0  # what is trained now would be another network
    stored = load_or_train(config, blank, split, 0, tmp_path, short)
    assert torch.equal(weights(stored), weights(first))
    assert stored.auroc == first.auroc
    assert stored.crop == first.crop
    for fold, budget in ((1, short), (0, replace(short, steps=3))):
        assert not torch.equal(weights(load_or_train(config, blank, split, fold, tmp_path, budget)), weights(first))
