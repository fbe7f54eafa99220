from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.imaging.errors import ModelError
from app.imaging.volume import Grid
from app.inference.detection import DEFAULT_MAX_VOXELS, detect, max_voxels_within
from app.inference.network import SessionOptions, open_network
from tests.tiny_model import BOX_MM, tiny_detector

BALLS = [(10, 12, 14), (24, 20, 40), (25, 40, 31), (40, 47, 55), (31, 33, 8)]
"""Some of them near the borders that tiles will have."""


def with_detector(model, **changes):
    manifest = model.manifest.model_copy(update={"detector": model.manifest.detector.model_copy(update=changes)})
    return replace(model, manifest=manifest)


def says(boxes, scores):
    """A detector with one answer for everything."""
    answer = {"boxes": np.asarray(boxes, np.float32)[None], "scores": np.asarray(scores, np.float32)[None]}
    return lambda _inputs: answer


def test_each_ball_is_found_where_it_is(tiny_model, prepared_with):
    prepared = prepared_with(BALLS)
    found = detect(prepared, tiny_model)
    expected = prepared.grid.to_patient(BALLS)
    assert sorted(c.center_lps_mm for c in found) == sorted(map(tuple, expected))
    assert [c.diameter_mm for c in found] == pytest.approx([BOX_MM] * len(BALLS))


def test_centres_are_patient_coordinates_of_an_oblique_anisotropic_grid(tiny_model, prepared_with):
    angle = np.deg2rad(15)
    turned = np.array([[0, -np.sin(angle), np.cos(angle)], [0, np.cos(angle), np.sin(angle)], [1, 0, 0]])
    grid = Grid.from_spacing((48, 56, 64), (2.5, 1.5, 2.0), (-40.0, 25.0, 310.0), turned)
    (found,) = detect(prepared_with([(30, 21, 50)], grid=grid), tiny_model)
    assert found.center_lps_mm == pytest.approx(tuple(grid.to_patient((30, 21, 50))))
    assert found.diameter_mm == pytest.approx(5 * (2.5 + 1.5 + 2.0) / 3)


@pytest.mark.parametrize("max_voxels", [110_000, 80_000, 64_000])
def test_tiles_give_what_one_pass_gives(tiny_model, prepared_with, max_voxels):
    model = with_detector(tiny_model, halo_voxels=12)
    prepared = prepared_with(BALLS)
    seen = []
    tiled = detect(prepared, model, lambda _fraction, detail: seen.append(detail), max_voxels=max_voxels)
    whole = detect(prepared, model)
    assert len(seen) > 2
    assert [c.center_lps_mm for c in tiled] == [c.center_lps_mm for c in whole]
    assert [c.probability for c in tiled] == pytest.approx([c.probability for c in whole], abs=1e-6)


points = st.tuples(st.integers(0, 47), st.integers(0, 55), st.integers(0, 63))


@given(balls=st.lists(points, max_size=12), max_voxels=st.integers(64_000, 48 * 56 * 64))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cap_gives_the_same_candidates(tiny_model, prepared_with, balls, max_voxels):
    """Balls anywhere, on seams and borders too; the halo is the tiny detector's receptive radius, 8, and its boxes'."""
    prepared, model = prepared_with(balls), with_detector(tiny_model, halo_voxels=11)
    tiled, whole = (detect(prepared, model, max_voxels=cap) for cap in (max_voxels, DEFAULT_MAX_VOXELS))
    assert [c.center_lps_mm for c in tiled] == [c.center_lps_mm for c in whole]
    assert [c.probability for c in tiled] == pytest.approx([c.probability for c in whole], abs=1e-6)


@pytest.mark.parametrize("max_voxels", [110_000, 64_000])
def test_tiles_give_no_more_boxes_than_one_pass_can(tiny_model, prepared_with, max_voxels):
    """More peaks than a pass gives boxes: the weakest are left out wherever they lie, not tile by tile."""
    model = with_detector(tiny_model, halo_voxels=12, score_threshold=0.0)
    few = open_network(tiny_detector(boxes_per_pass=7).SerializeToString(), SessionOptions(device="cpu", threads=1))
    prepared = prepared_with(BALLS)
    whole = detect(prepared, replace(model, detector=few))
    tiled = detect(prepared, replace(model, detector=few), max_voxels=max_voxels)
    assert len(whole) == 7
    assert [c.center_lps_mm for c in tiled] == [c.center_lps_mm for c in whole]


def test_a_cap_in_memory_is_one_in_voxels_by_what_was_measured(tiny_model):
    assert max_voxels_within(tiny_model, None) == DEFAULT_MAX_VOXELS
    assert max_voxels_within(with_detector(tiny_model, bytes_per_voxel=32.0), 1.0) == (1 << 20) // 32
    assert max_voxels_within(with_detector(tiny_model, bytes_per_voxel=None), 31.0) == 1 << 20


def test_a_tile_drops_what_lies_in_its_halo(tiny_model, prepared_with):
    """With a blind detector that sees every tile the same, each core keeps its own box and no other's."""
    prepared = prepared_with([], shape=(64, 16, 16))
    model = replace(with_detector(tiny_model, halo_voxels=8, nms_iou=1.0), detector=says([[-1, 5, 5, 3, 9, 9]], [0.9]))
    found = detect(prepared, model, max_voxels=48 * 16 * 16)
    assert [c.center_lps_mm[2] / 2 for c in found] == [1.0]


def test_candidates_come_by_falling_probability_and_no_more_than_asked_for(tiny_model, prepared_with):
    prepared = prepared_with(BALLS)
    everything = detect(prepared, tiny_model)
    assert [c.probability for c in everything] == sorted((c.probability for c in everything), reverse=True)
    assert detect(prepared, with_detector(tiny_model, max_candidates=2)) == everything[:2]


def test_candidates_outside_the_lungs_are_dropped(tiny_model, prepared_with):
    in_lungs = np.zeros((48, 56, 64), bool)
    in_lungs[:24] = True
    prepared = prepared_with([(10, 12, 14), (24, 20, 40)], in_lungs=in_lungs)
    (found,) = detect(prepared, tiny_model)
    assert found.center_lps_mm == (28.0, 24.0, 20.0)


def test_a_centre_beyond_the_array_is_dropped(tiny_model, prepared_with):
    inside, outside = [0, 0, 0, 4, 4, 4], [-6, 0, 0, 2, 4, 4]
    model = replace(tiny_model, detector=says([inside, outside], [0.9, 0.8]))
    assert len(detect(prepared_with([]), model)) == 1


def test_boxes_below_the_threshold_are_dropped_and_one_at_it_is_kept(tiny_model, prepared_with):
    boxes = [[0, 0, 0, 4, 4, 4], [20, 20, 20, 24, 24, 24]]
    model = replace(with_detector(tiny_model, score_threshold=0.5), detector=says(boxes, [0.5, 0.4999]))
    assert [c.probability for c in detect(prepared_with([]), model)] == [0.5]


def test_of_overlapping_boxes_the_better_stays(tiny_model, prepared_with):
    boxes = [[0, 0, 0, 4, 4, 4], [1, 0, 0, 5, 4, 4], [20, 20, 20, 24, 24, 24]]
    model = replace(tiny_model, detector=says(boxes, [0.7, 0.9, 0.8]))
    assert [c.probability for c in detect(prepared_with([]), model)] == pytest.approx([0.9, 0.8])


@pytest.mark.parametrize(
    ("box", "score"),
    [([0, 0, 0, 4, 4, 4], np.nan), ([0, np.nan, 0, 4, 4, 4], 0.9), ([4, 0, 0, 4, 4, 4], 0.9)],
    ids=["score", "corner", "no extent"],
)
def test_nonsense_is_not_taken_for_nothing_found(tiny_model, prepared_with, box, score):
    with pytest.raises(ModelError) as refused:
        detect(prepared_with([]), replace(tiny_model, detector=says([box], [score])))
    assert refused.value.code == "network_output_invalid"


def test_nonsense_below_the_threshold_is_of_no_account(tiny_model, prepared_with):
    model = replace(tiny_model, detector=says([[np.inf] * 6], [0.01]))
    assert detect(prepared_with([]), model) == []


def test_a_volume_prepared_otherwise_is_refused(tiny_model, prepared_with):
    prepared = replace(prepared_with([]), spec_digest="0" * 64)
    with pytest.raises(ModelError, match="another specification") as refused:
        detect(prepared, tiny_model)
    assert refused.value.code == "preprocessing_mismatch"


def test_a_cap_without_room_for_the_halo_is_refused(tiny_model, prepared_with):
    with pytest.raises(ModelError) as refused:
        detect(prepared_with([]), tiny_model, max_voxels=1000)
    assert refused.value.code == "tile_too_small"
    assert refused.value.values["max_voxels"] == 1000


def test_progress_names_each_tile_and_ends_at_one(tiny_model, prepared_with):
    told = []
    detect(
        prepared_with([]), with_detector(tiny_model, halo_voxels=8), lambda *step: told.append(step), max_voxels=100_000
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert told[1][1] == f"tile 2 of {len(told) - 1}"
