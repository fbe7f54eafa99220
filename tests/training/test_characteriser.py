"""The second stage: shapes, pooling over slices, what is served, and what its augmentation leaves alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.characteriser import Characteriser
from training.crop_augmentation import middle, random_views
from training.served import Calibration, ServedCharacteriser, mirrored_about_candidate


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Characteriser((8, 8, 16), attributes=3).eval()


@pytest.mark.parametrize(("n", "s"), [(1, 1), (3, 2), (2, 5)])
def test_any_number_of_candidates_and_slices(network, n, s):
    with torch.no_grad():
        out = network(torch.rand(n, s, 32, 32))
    assert out.nodule.shape == (n,)
    assert out.malignancy.shape == (n,)
    assert out.attributes.shape == (n, 3)
    assert out.mask.shape == (n, s, 32, 32)


def test_a_repeated_slice_says_what_one_slice_says(network):
    """One real patch in training and three slices in service must mean the same to the first head."""
    one = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        alone, thrice = network(one).nodule, network(one.expand(-1, 3, -1, -1)).nodule
    torch.testing.assert_close(alone, thrice, rtol=1e-5, atol=1e-5)


def test_the_first_head_alone_agrees_with_the_whole(network):
    crops = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.nodule_logit(crops), network(crops).nodule)


def test_candidates_do_not_see_each_other(network):
    crops = torch.rand(3, 2, 32, 32)
    with torch.no_grad():
        together, alone = network(crops).malignancy[1], network(crops[1:2]).malignancy[0]
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_served_probabilities_are_calibrated_and_mirror_symmetric(network):
    served = ServedCharacteriser(network, Calibration(0.5, -1.0), Calibration(2.0, 0.25))
    crops = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = served.logits(crops)
        nodule, malignancy, attributes, mask = served(crops)
        mirrored = served(mirrored_about_candidate(crops))
    torch.testing.assert_close(nodule, torch.sigmoid(0.5 * logits.nodule - 1.0))
    torch.testing.assert_close(malignancy, torch.sigmoid(2.0 * logits.malignancy + 0.25))
    assert ((attributes > 0) & (attributes < 1)).all()
    torch.testing.assert_close(mirrored[0], nodule, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mirrored_about_candidate(mirrored[3]), mask, rtol=1e-4, atol=1e-5)


def test_mirror_keeps_the_candidate_in_place():
    crop = torch.zeros(1, 1, 8, 8)
    crop[0, 0, 4, 4] = 1
    assert torch.equal(mirrored_about_candidate(crop), crop)
    crop[0, 0, 4, 6] = 1
    assert mirrored_about_candidate(crop)[0, 0, 4, 2] == 1


@given(seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_views_keep_the_candidate_near_the_middle_and_move_the_mask_with_it(seed):
    """A bright disc is 255 in both crop and mask: wherever the crop's disc goes, the mask's goes too."""
    y, x = np.mgrid[:88, :88]
    disc = (np.hypot(y - 44, x - 44) < 8).astype(np.uint8) * 255
    crops = torch.from_numpy(np.stack([[disc] * 3] * 2))
    views, mask = random_views(crops, 64, torch.Generator().manual_seed(seed), crops)
    assert views.shape == mask.shape == (2, 3, 64, 64)
    assert views.min() >= 0
    assert views.max() <= 1
    for item in range(2):
        inside = mask[item, 1] > 0.5
        rows, columns = torch.nonzero(inside).float().mean(dim=0)
        assert abs(rows - 32) < 8
        assert abs(columns - 32) < 8
        bright = views[item, 1] > 0.5
        visible = bright.any()
        overlap = (bright & inside).sum() / bright.sum().clamp(min=1)
        assert not visible or overlap > 0.9


def test_views_are_the_same_for_the_same_seed_and_differ_for_another():
    crops = torch.randint(0, 255, (2, 1, 88, 88), dtype=torch.uint8)
    first, second, other = (random_views(crops, 64, torch.Generator().manual_seed(seed))[0] for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_middle_of_a_wide_crop_is_where_the_service_puts_the_candidate():
    wide = torch.zeros(1, 1, 88, 88)
    wide[0, 0, 44, 44] = 1
    assert middle(wide, 64)[0, 0, 32, 32] == 1
