"""No patient on two sides, the same split from the same seed, and a manifest that notices changes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.splits import (
    Split,
    SplitError,
    assert_no_leak,
    official_luna16_split,
    read_split,
    split_patients,
    write_split,
)

PATIENTS = [f"P{i:03d}" for i in range(53)]


@given(st.sets(st.text(min_size=1), min_size=5, max_size=60), st.integers(0, 2**32 - 1))
def test_every_patient_is_in_exactly_one_fold_and_folds_are_of_equal_size(patients, seed):
    split = split_patients(patients, 5, seed)
    folds = [split.patients(fold) for fold in range(5)]
    assert sorted(patient for fold in folds for patient in fold) == sorted(patients)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_order_and_repetition_of_patients_do_not_matter():
    assert split_patients(PATIENTS, 5, 1) == split_patients([*reversed(PATIENTS), *PATIENTS], 5, 1)


def test_another_seed_gives_another_split():
    assert split_patients(PATIENTS, 5, 1).sha256 != split_patients(PATIENTS, 5, 2).sha256


def test_weights_even_out_what_the_folds_hold():
    weights = {patient: float(index**2) for index, patient in enumerate(PATIENTS)}
    split = split_patients(PATIENTS, 5, 0, weights)
    loads = [sum(weights[patient] for patient in split.patients(fold)) for fold in range(5)]
    assert max(loads) - min(loads) < 0.02 * sum(loads)


def test_too_few_patients_are_refused():
    with pytest.raises(SplitError, match="3 patients cannot fill 5 folds"):
        split_patients(["a", "b", "c"], 5, 0)


def test_held_out_follows_the_patient_of_each_item():
    split = Split({"a": 0, "b": 1, "c": 0}, 2, 0, "by hand")
    assert split.held_out(0, ["a", "a", "b", "c"]).tolist() == [True, True, False, True]


def test_an_item_of_an_unknown_patient_is_refused():
    with pytest.raises(SplitError, match="1 patients of the data are not in the split"):
        Split({"a": 0, "b": 1}, 2, 0, "by hand").held_out(0, ["a", "z"])


def test_an_empty_fold_is_refused():
    with pytest.raises(SplitError, match="folds 0 to 2"):
        Split({"a": 0, "b": 2}, 3, 0, "by hand")


def test_manifest_round_trips(tmp_path):
    split = split_patients(PATIENTS, 5, 7)
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split
    assert json.loads((tmp_path / "split.json").read_text())["sha256"] == split.sha256


@pytest.mark.parametrize(
    "change",
    [lambda c: c["fold_of_patient"].update(P000=4), lambda c: c.update(seed=8), lambda c: c.update(sha256="0")],
)
def test_a_changed_manifest_is_refused(tmp_path, change):
    path = tmp_path / "split.json"
    write_split(path, Split({p: i % 5 for i, p in enumerate(PATIENTS)}, 5, 7, "by hand"))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match="was changed"):
        read_split(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fold_of_patient": []}'])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(SplitError, match="not a split manifest"):
        read_split(tmp_path / "split.json")


def test_official_folds_group_a_patient_with_two_series():
    split = official_luna16_split({"s1": 0, "s2": 1, "s3": 1}, {"s1": "a", "s2": "b", "s3": "b"})
    assert dict(split.fold_of_patient) == {"a": 0, "b": 1}


def test_official_folds_that_tear_a_patient_apart_are_refused():
    with pytest.raises(SplitError, match="1 patients have series in more than one official fold, first b"):
        official_luna16_split({"s1": 0, "s2": 0, "s3": 1}, {"s1": "a", "s2": "b", "s3": "b"})


def test_a_leak_is_named():
    assert_no_leak(["a", "b"], ["c"])
    with pytest.raises(SplitError, match="first b"):
        assert_no_leak(["a", "b"], ["b", "c"])


def test_patients_of_the_real_sets_are_split_together(shared_data):
    patches = np.load(shared_data / "luna16_axial_patches.npz")["patient_id"].tolist()
    nodules = np.load(shared_data / "lidc_nodule_slices.npz")["patient_id"].tolist()
    split = split_patients([*patches, *nodules], 5, 0, Counter(nodules))
    for fold in range(5):
        out_patches, out_nodules = split.held_out(fold, patches), split.held_out(fold, nodules)
        trained = {p for p, out in zip(patches, out_patches, strict=True) if not out}
        assert_no_leak(trained, {p for p, out in zip(nodules, out_nodules, strict=True) if out})
