"""Which lungs a fold sees and which it holds out."""

import pytest

from training.config import DataConfig


@pytest.mark.parametrize("fold", range(5))
def test_a_fold_never_trains_in_a_lung_that_it_holds_out(fold):
    data = DataConfig()
    held_out, trained = data.held_out_scans(fold), data.training_scans(fold)
    assert held_out
    assert trained
    assert not set(held_out) & set(trained)
    assert sorted(held_out + trained) == sorted(scan for group in data.lung_folds for scan in group)


def test_every_scan_is_held_out_by_one_fold_and_folds_beyond_hold_out_what_the_first_does():
    data = DataConfig(lung_folds=(("a",), ("b", "c")))
    assert [data.held_out_scans(fold) for fold in range(4)] == [("a",), ("b", "c"), ("a",), ("a",)]
    assert [data.training_scans(fold) for fold in range(3)] == [("b", "c"), ("a",), ("b", "c")]


def test_scans_that_are_background_are_of_patients_kept_out_of_training():
    """Otherwise a patient's own nodule could be learnt from in the lung that it is to be found in."""
    data = DataConfig()
    patients = {scan.split("/")[-1].split(".")[0] for group in data.lung_folds for scan in group}
    assert patients <= set(data.held_out_patients)
