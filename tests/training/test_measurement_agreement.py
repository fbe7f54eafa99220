"""Phantoms that measurements are checked against, and the fits of their thresholds."""

from dataclasses import fields

import numpy as np
import pytest

from app.imaging.preprocessing import CropSpec
from app.inference.measurements import volume_mm3
from training.measured_nodules import MeasuredNodules
from training.measurement_agreement import ideal_mask, limits, type_lines
from training.measurement_fit import f_score, fit_calcification, fit_interval, fit_texture
from training.sphere_phantoms import LUNG_HU, SOLID_HU, sphere


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (5.0, 0.9, 0.9)])
def test_a_sphere_holds_as_much_tissue_as_it_says(spacing, oblique):
    truth = sphere(np.random.default_rng(1), 12.0, spacing, noise_hu=0.0, oblique=oblique)
    tissue = (truth.volume.hu - LUNG_HU).sum(dtype=float) / (SOLID_HU - LUNG_HU)
    assert tissue * truth.volume.grid.voxel_volume_mm3 == pytest.approx(truth.volume_mm3, rel=0.03)


def test_the_ideal_mask_is_the_sphere():
    truth = sphere(np.random.default_rng(2), 15.0, (1.0, 0.7, 0.7), oblique=True)
    assert volume_mm3(ideal_mask(truth, CropSpec())) == pytest.approx(truth.volume_mm3, rel=0.03)


def nodules(n: int = 400, **columns: np.ndarray) -> MeasuredNodules:
    """Nodules of which only these columns matter."""
    filled = {f.name: np.ones(n) for f in fields(MeasuredNodules)}
    words = {"patient_id": np.arange(n).astype(str), "kind_found": np.full(n, "solid"), "signs_found": np.full(n, "")}
    flags = {"spiculated_found": np.zeros(n, bool), "exact_hu": np.ones(n, bool)}
    return MeasuredNodules(**{**filled, **words, **flags, **columns})


def test_texture_is_parted_where_the_readers_part_it():
    texture = np.repeat([1.0, 3.0, 5.0, 5.0], 100)
    said = np.repeat([0.2, 0.55, 0.9, 0.95], 100)
    low, high, score = fit_texture(nodules(texture=texture, calcification=np.full(400, 6.0), texture_said=said))
    assert 0.2 < low <= 0.55 < high <= 0.9
    assert score == pytest.approx(1.0)


def test_calcium_needs_both_where_only_both_are_right():
    calcified = np.repeat([True, False, False, False], 100)
    below, share, score = fit_calcification(
        nodules(
            calcification=np.where(calcified, 3.0, 6.0),
            texture=np.full(400, 5.0),
            calcification_said=np.repeat([0.4, 0.4, 0.99, 0.99], 100),
            calcium_mm3=np.repeat([0.12, 0.0, 0.12, 0.0], 100),
        )
    )
    assert (below > 0.4, 0 < share <= 0.12, score) == (True, True, pytest.approx(1.0))


def test_the_interval_covers_95_percent_of_what_it_was_fitted_on():
    rng = np.random.default_rng(0)
    voxels, doubt = rng.uniform(0.1, 1.0, 2000), rng.uniform(0.05, 0.3, 2000)
    error = rng.normal(0, np.hypot(0.4 * voxels, 1.5 * doubt))
    some = nodules(2000, voxel_share=voxels, outline_doubt=doubt, reference_volume_mm3=np.exp(error))
    weights = fit_interval(some)
    assert weights == pytest.approx((0.4, 1.5), rel=0.2)
    assert np.mean(np.abs(error) < 1.96 * np.hypot(weights[0] * voxels, weights[1] * doubt)) == pytest.approx(
        0.95, abs=0.002
    )


def test_a_confusion_is_counted_row_by_row():
    found = np.repeat(["solid", "part_solid", "ground_glass", "calcified"], 100)
    lines = list(type_lines(nodules(texture=np.full(400, 5.0), calcification=np.full(400, 6.0), kind_found=found)))
    assert "| solid | 400 | 100 | 100 | 100 | 100 |" in lines
    assert any("0.250" in line for line in lines)


def test_f_score_and_limits():
    said, truth = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert f_score(said, truth) == pytest.approx(0.5)
    assert f_score(~truth, truth) == 0.0
    assert limits([1.0, -1.0], 1) == "0.0 (-2.8 to 2.8)"
