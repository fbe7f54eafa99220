from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.errors import ModelError
from app.imaging.volume import CtVolume, Grid
from app.inference.characterisation import BATCH, characterise, mixed_probability
from app.inference.findings import Candidate
from app.inference.model_store import LoadedModel

GRID = Grid.from_spacing((40, 160, 160), (2.0, 0.7, 0.7))
PLACES = [(10, 40, 40), (20, 110, 50), (28, 60, 120)]
DIAMETERS = [8.0, 12.0, 16.0]


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    index = np.moveaxis(np.indices(GRID.shape_zyx), 0, -1)
    hu = np.full(GRID.shape_zyx, -850, np.int16)
    for place, diameter, shade in zip(PLACES, DIAMETERS, (-300, 0, 100), strict=True):
        hu[np.linalg.norm((index - np.asarray(place)) * GRID.spacing_zyx_mm, axis=-1) <= diameter / 2] = shade
    return CtVolume(hu, GRID)


def candidate(place, diameter_mm=10.0, probability=0.6) -> Candidate:
    return Candidate(tuple(GRID.to_patient(place)), diameter_mm, probability)


CANDIDATES = [candidate(place) for place in PLACES]
LUNG_ONLY = candidate((20, 20, 120))


def with_characteriser(model: LoadedModel, **changes) -> LoadedModel:
    entry = model.manifest.characteriser.model_copy(update=changes)
    return replace(model, manifest=model.manifest.model_copy(update={"characteriser": entry}))


probabilities = st.floats(0, 1)


@given(probabilities, probabilities)
def test_without_weight_the_detector_has_no_say(characteriser, detector):
    assert mixed_probability(characteriser, detector, 0.0) == pytest.approx(characteriser, abs=2e-6)
    assert mixed_probability(characteriser, detector, 1.0) == pytest.approx(detector, abs=2e-6)


@given(probabilities, probabilities, probabilities)
def test_a_mixture_lies_between_its_parts(characteriser, detector, weight):
    mixed = mixed_probability(characteriser, detector, weight)
    assert min(characteriser, detector) - 2e-6 <= mixed <= max(characteriser, detector) + 2e-6


def test_log_odds_are_mixed_not_probabilities():
    """Odds of 9:1 and 1:1 in equal parts: the geometric mean, 3:1."""
    assert mixed_probability(0.9, 0.5, 0.5) == pytest.approx(0.75)


def test_nodules_come_by_falling_probability_and_lung_is_none(tiny_model, volume):
    found = characterise(volume, [LUNG_ONLY, *CANDIDATES], tiny_model, 0.5).nodules
    assert [n.center_lps_mm for n in found] == [
        pytest.approx(tuple(GRID.to_patient(place)), abs=0.2) for place in reversed(PLACES)
    ]
    assert [2 * n.radius_mm for n in found] == pytest.approx(DIAMETERS[::-1], abs=0.7)


def test_each_candidate_keeps_its_own_answers_in_any_order(tiny_model, volume):
    forward = characterise(volume, CANDIDATES, tiny_model, 0.0).nodules
    backward = characterise(volume, CANDIDATES[::-1], tiny_model, 0.0).nodules
    assert [n.attributes for n in forward] == [n.attributes for n in backward]
    assert len({n.malignancy_probability for n in forward}) == 3
    assert list(forward[0].attributes) == ["mean_intensity", "brightest"]
    assert forward[0].attributes["brightest"] == pytest.approx(1100 / 1400, abs=1e-3)


def test_the_threshold_itself_is_enough(tiny_model, volume):
    least = min(n.probability for n in characterise(volume, CANDIDATES, tiny_model, 0.0).nodules)
    assert len(characterise(volume, CANDIDATES, tiny_model, least).nodules) == 3
    assert len(characterise(volume, CANDIDATES, tiny_model, np.nextafter(least, 1)).nodules) == 2


def test_the_detectors_weight_of_the_manifest_is_used(tiny_model, volume):
    model = with_characteriser(tiny_model, detector_weight=1.0)
    doubtful, sure = candidate(PLACES[2], probability=0.2), candidate(PLACES[0], probability=0.8)
    found = characterise(volume, [doubtful, sure], model, 0.0).nodules
    assert [n.probability for n in found] == pytest.approx([0.8, 0.2])


def test_two_candidates_in_one_nodule_are_one_the_more_probable(tiny_model, volume):
    model = with_characteriser(tiny_model, detector_weight=1.0)
    z, y, x = PLACES[2]
    twice = [candidate((z, y, x - 5), probability=0.7), candidate((z, y, x + 5), probability=0.9)]
    (found,) = characterise(volume, twice, model, 0.5).nodules
    assert found.probability == pytest.approx(0.9)


def test_candidates_whose_outlines_turn_out_to_be_the_same_are_one(tiny_model, volume):
    """The detector's spheres of 1 mm keep them apart; the nodule that both outline does not."""
    z, y, x = PLACES[2]
    twice = [candidate((z, y, x - 5), diameter_mm=1.0), candidate((z, y, x + 5), diameter_mm=1.0)]
    assert len(characterise(volume, twice, tiny_model, 0.5).nodules) == 1


def test_neighbours_farther_apart_than_their_radii_are_two(tiny_model, volume):
    model = with_characteriser(tiny_model, detector_weight=1.0)
    pair = [candidate((20, 20, 100), 4.0), candidate((20, 20, 103), 4.0)]
    found = characterise(volume, pair, model, 0.5)
    assert len(found.nodules) == 2
    assert {notice.code for notice in found.notices} == {"outline_from_detector"}


def test_more_candidates_than_a_batch_are_all_judged(tiny_model, volume):
    """A batch and more of lung, and one nodule as the last."""
    lung = [candidate((20, 10 + n // 10, 100 + n % 10)) for n in range(BATCH + 5)]
    batches = []

    def watched(inputs):
        batches.append(inputs["crops"].shape[:2])
        return tiny_model.characteriser(inputs)

    found = characterise(volume, [*lung, CANDIDATES[2]], replace(tiny_model, characteriser=watched), 0.5)
    assert len(found.nodules) == 1
    assert batches[:2] == [(BATCH, 3), (6, 3)]


def test_nothing_to_judge_is_nothing_found(tiny_model, volume):
    found = characterise(volume, [], tiny_model, 0.5)
    assert (found.nodules, found.notices) == ((), ())


def test_numbers_that_are_none_are_not_taken_for_no_nodule(tiny_model, volume):
    def faulty(inputs):
        said = tiny_model.characteriser(inputs)
        return {**said, "nodule_probability": said["nodule_probability"] * np.nan}

    with pytest.raises(ModelError, match="nodule_probability") as refused:
        characterise(volume, CANDIDATES, replace(tiny_model, characteriser=faulty), 0.5)
    assert refused.value.code == "network_output_invalid"


def test_progress_rises_to_one(tiny_model, volume):
    told = []
    characterise(volume, CANDIDATES, tiny_model, 0.5, lambda fraction, _detail: told.append(fraction))
    assert told == sorted(told)
    assert (told[0], told[-1], len(told)) == (0.0, 1.0, 5)
