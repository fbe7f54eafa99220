"""The study on a handful of synthetic patches: leak-free, resumable, and a report that says what came out."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel

from app.evaluation.estimates import Estimate
from training.activation_report import (
    ActivationResult,
    corrected_paired_t,
    holm,
    summarise,
    verdict,
    write_activation_report,
)
from training.compare_activations import (
    ACTIVATIONS,
    Budget,
    Patches,
    load_patches,
    read_runs,
    run_study,
    small_cnn,
    study_keys,
    study_split,
)

TINY = Budget(steps=2, batch=8, nodules_per_batch=2, widths=(2, 2, 2, 2), crop_px=16, folds=2, seeds=1)

PAIR = ("ReLU", "tanh")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def patches():
    """Bright blobs are nodules; four patches to a patient."""
    rng = np.random.default_rng(0)
    is_nodule = np.arange(48) % 4 == 0
    images = rng.integers(0, 60, (48, 64, 64))
    images[is_nodule, 28:36, 28:36] += 150
    return Patches(images.astype(np.uint8), is_nodule, np.repeat([f"P{i}" for i in range(12)], 4))


def lines(out):
    return (out / "runs.jsonl").read_text().splitlines()


def test_the_ten_activations_of_the_claim_are_compared():
    names = {"ReLU", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "tanh", "sigmoid"}
    assert set(ACTIVATIONS) == names
    for make in ACTIVATIONS.values():
        assert small_cnn(make, (2, 2, 2, 2))(torch.zeros(3, 1, 16, 16)).shape == (3, 1)


def test_an_unfinished_study_has_compared_equals():
    keys = list(study_keys(("ReLU", "tanh"), replace(TINY, seeds=2)))
    assert keys[:4] == [("ReLU", 0, 0), ("tanh", 0, 0), ("ReLU", 0, 1), ("tanh", 0, 1)]
    assert len(set(keys)) == 8


def test_no_patient_is_on_two_sides(patches):
    split = study_split(patches, TINY)
    held_out = split.held_out(0, patches.patient_id.tolist())
    assert not set(patches.patient_id[held_out]) & set(patches.patient_id[~held_out])
    assert patches.is_nodule[held_out].sum() == 6


def test_a_study_that_was_killed_goes_on_where_it_stopped(patches, tmp_path):
    run_study(patches, tmp_path, TINY, PAIR)
    whole = lines(tmp_path)
    # Killed while the third line was written, and before the fourth run.
    (tmp_path / "runs.jsonl").write_text("\n".join([*whole[:2], whole[2][:30]]) + "\n")
    run_study(patches, tmp_path, TINY, PAIR)
    runs = read_runs(tmp_path, TINY)
    assert [run.key for run in runs] == list(study_keys(("ReLU", "tanh"), TINY))
    assert {run.key: run.auroc for run in runs} == {
        (entry["activation"], entry["seed"], entry["fold"]): entry["auroc"] for entry in map(json.loads, whole)
    }
    before = lines(tmp_path)
    run_study(patches, tmp_path, TINY, PAIR)
    assert lines(tmp_path) == before


def test_runs_of_another_budget_do_not_count(patches, tmp_path):
    run_study(patches, tmp_path, TINY, ("ReLU",))
    assert read_runs(tmp_path, replace(TINY, steps=3)) == []
    assert len(read_runs(tmp_path, replace(TINY, seeds=5))) == 2


def test_all_activations_start_from_the_same_weights_and_see_the_same_batches(patches, tmp_path, monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "again", ACTIVATIONS["ReLU"])
    run_study(patches, tmp_path, TINY, ("ReLU", "again"))
    first, second = (np.load(tmp_path / f"scores_{name}_seed0_fold0.npy") for name in ("ReLU", "again"))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, np.load(tmp_path / "scores_ReLU_seed0_fold1.npy"))


def test_the_report_holds_every_activation_and_says_how_much_is_finished(patches, tmp_path):
    run_study(patches, tmp_path / "runs", TINY, PAIR)
    reports = tmp_path / "model" / "reports"
    write_activation_report(
        patches, tmp_path / "runs", tmp_path / "docs", replace(TINY, seeds=3), PAIR, reports=reports
    )
    text = (tmp_path / "docs" / "activations.md").read_text()
    assert "unfinished: 2 of 6 pairs" in text
    assert "| ReLU |" in text
    assert "| tanh |" in text
    assert "](../model/reports/activations.png)" in text
    assert "](../model/reports/activations.csv)" in text
    assert (reports / "activations.png").read_bytes().startswith(b"\x89PNG")
    assert len((reports / "activations.csv").read_text().splitlines()) == 5


def test_a_pair_that_one_activation_lacks_is_left_out(patches, tmp_path):
    run_study(patches, tmp_path, TINY, PAIR)
    (tmp_path / "runs.jsonl").write_text("\n".join(lines(tmp_path)[:3]))
    results, n_pairs = summarise(patches, tmp_path, TINY, PAIR)
    assert n_pairs == 1
    assert {result.activation for result in results} == {"ReLU", "tanh"}
    (tmp_path / "runs.jsonl").write_text("")
    with pytest.raises(ValueError, match="run the study first"):
        summarise(patches, tmp_path, TINY, PAIR)


def test_the_report_of_a_study_that_no_pair_has_finished_makes_no_claim(patches, tmp_path):
    run_study(patches, tmp_path / "runs", TINY, ("ReLU",))
    write_activation_report(patches, tmp_path / "runs", tmp_path / "docs", TINY, PAIR)
    text = (tmp_path / "docs" / "activations.md").read_text()
    assert "has not been\nmeasured yet" in text
    assert "2 networks" in text


def test_differences_are_paired_with_the_baseline(patches, tmp_path):
    run_study(patches, tmp_path, TINY, PAIR)
    results, _ = summarise(patches, tmp_path, TINY, PAIR)
    by_name = {result.activation: result for result in results}
    gap = by_name["tanh"].auroc.value - by_name["ReLU"].auroc.value
    assert by_name["tanh"].minus_baseline.value == pytest.approx(gap)
    assert by_name["ReLU"].minus_baseline is None
    assert by_name["ReLU"].auroc.n == 12


def test_without_overlap_the_corrected_test_is_the_paired_t_test():
    differences = [0.01, 0.02, -0.005, 0.015, 0.01]
    plain = ttest_rel(differences, np.zeros(5)).pvalue
    assert corrected_paired_t(differences, n_train=10**12, n_test=1) == pytest.approx(plain, rel=1e-6)
    assert corrected_paired_t(differences, n_train=2, n_test=1) > plain
    assert math.isnan(corrected_paired_t([0.01], 2, 1))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, math.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(holm([0.01, math.nan])[1])


def result(name, value, difference=None, p=None):
    estimate = Estimate(value, value, value, 9)
    gap = None if difference is None else Estimate(difference, difference, difference, 9)
    return ActivationResult(name, estimate, 0.0, gap, p, p, 1.0)


@pytest.mark.parametrize(
    ("others", "outcome"),
    [
        ([result("tanh", 0.8, -0.1, 0.001)], "is supported"),
        ([result("tanh", 0.8, -0.1, 0.5)], "is not supported"),
        ([result("SiLU", 0.95, 0.05, 0.2)], "is not supported"),
        ([result("SiLU", 0.95, 0.05, 0.01)], "is contradicted"),
    ],
)
def test_the_verdict_claims_no_more_than_the_tests(others, outcome):
    ranked = sorted([result("ReLU", 0.9), *others], key=lambda r: -r.auroc.value)
    assert outcome in verdict(ranked)


def test_labels_of_the_real_patches_are_joined_by_half_the_diameter(shared_data):
    patches = load_patches(shared_data)
    assert patches.images.shape == (13250, 64, 64)
    assert patches.is_nodule.sum() == 1379
