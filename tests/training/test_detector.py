"""The first stage: targets, losses and the decoding that is exported with it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.detector import REFERENCE_DIAMETER_MM, STRIDE, DecodedDetector, Detector, HeatMaps, space_to_depth
from training.train_detector import Targets, detector_losses, make_targets

TAUGHT = np.ones((32, 32, 32), bool)


class Perfect(nn.Module):
    """Says exactly what the targets say."""

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self.targets = targets

    def forward(self, volume: torch.Tensor) -> HeatMaps:
        t = self.targets
        return HeatMaps(torch.logit(t.heat[None].clamp(1e-4, 1 - 1e-4)), t.offset[None], t.log_size[None])


@given(
    center=st.tuples(*[st.floats(4, 27)] * 3),
    diameter=st.floats(3, 20),
)
@settings(max_examples=50)
def test_decoding_reverses_the_targets(center, diameter):
    targets = make_targets(np.array([center]), np.array([diameter]), TAUGHT)
    boxes, scores = DecodedDetector(Perfect(targets), spacing_mm=1.0, top=4)(torch.zeros(1, 1, 32, 32, 32))
    low, high = boxes[0, 0, :3].numpy(), boxes[0, 0, 3:].numpy()
    assert scores[0, 0] > 0.99
    np.testing.assert_allclose((low + high) / 2, center, atol=1e-4)
    np.testing.assert_allclose(high - low, diameter, rtol=1e-4)


def test_boxes_are_in_voxels_whatever_the_spacing():
    targets = make_targets(np.array([[16.0, 16.0, 16.0]]), np.array([8.0]), TAUGHT)
    boxes, _ = DecodedDetector(Perfect(targets), spacing_mm=2.0, top=1)(torch.zeros(1, 1, 32, 32, 32))
    np.testing.assert_allclose((boxes[0, 0, 3:] - boxes[0, 0, :3]).numpy(), 4.0, rtol=1e-4)


def test_two_nodules_are_two_peaks_by_falling_score():
    targets = make_targets(np.array([[8.0, 8.0, 8.0], [24.0, 24.0, 20.0]]), np.array([6.0, 10.0]), TAUGHT)
    boxes, scores = DecodedDetector(Perfect(targets), spacing_mm=1.0, top=8)(torch.zeros(1, 1, 32, 32, 32))
    assert (scores[0] > 0.5).sum() == 2
    assert (scores[0, :-1] >= scores[0, 1:]).all()
    found = sorted(((boxes[0, :2, :3] + boxes[0, :2, 3:]) / 2).round().tolist())
    assert found == [[8, 8, 8], [24, 24, 20]]


def test_what_is_not_taught_has_no_weight_but_an_inserted_nodule_there_has():
    taught = TAUGHT.copy()
    taught[:8] = False
    targets = make_targets(np.array([[4.0, 16.0, 16.0]]), np.array([6.0]), taught)
    assert targets.weight[0, 0, 0, 0] == 0
    assert targets.weight[0, 4, 0, 0] == 1
    assert targets.weight[0, 1, 4, 4] == 1


def test_a_nodule_outside_the_crop_leaves_no_target():
    targets = make_targets(np.array([[-3.0, 16.0, 16.0], [40.0, 1.0, 1.0]]), np.array([6.0, 6.0]), TAUGHT)
    assert targets.heat.max() < 1
    assert not targets.regress.any()


def test_losses_are_small_for_the_truth_and_large_for_silence():
    targets = make_targets(np.array([[16.0, 15.0, 17.0]]), np.array([REFERENCE_DIAMETER_MM * 2]), TAUGHT)
    batch = Targets(*(getattr(targets, f)[None] for f in ("heat", "weight", "offset", "log_size", "regress")))
    truth = detector_losses(Perfect(targets)(torch.empty(0)), batch)
    silent = HeatMaps(
        torch.full_like(batch.heat, -6.0), torch.zeros_like(batch.offset), torch.zeros_like(batch.log_size)
    )
    silence = detector_losses(silent, batch)
    assert truth["heat"] < 0.5 < silence["heat"]
    assert truth["offset"] == truth["size"] == 0
    assert silence["size"] == pytest.approx(np.log(2), rel=1e-5)


def test_space_to_depth_keeps_every_voxel_beside_its_neighbours():
    volume = torch.arange(4 * 4 * 4.0).reshape(1, 1, 4, 4, 4)
    folded = space_to_depth(volume)
    assert folded.shape == (1, 8, 2, 2, 2)
    assert sorted(folded[0, :, 0, 0, 0].tolist()) == sorted(volume[0, 0, :2, :2, :2].flatten().tolist())


def test_the_network_takes_any_multiple_of_16_and_answers_at_its_stride():
    network = Detector((4, 8, 8, 8), (1, 1, 1)).eval()
    with torch.no_grad():
        maps = network(torch.rand(1, 1, 16, 32, 48))
    assert maps.logit.shape == (1, 1, 16 // STRIDE, 32 // STRIDE, 48 // STRIDE)
    assert maps.offset.shape[1] == 3
