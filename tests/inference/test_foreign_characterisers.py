"""Characterisers of another make, served by their manifest alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit

from app.api.schemas import result_from_findings
from app.imaging.errors import ModelError
from app.imaging.preprocessing import sample_crops
from app.imaging.volume import CtVolume, Grid
from app.inference.characterisation import characterise, malignancy_at
from app.inference.findings import Candidate
from app.inference.manifest import load_manifest
from app.inference.model_store import LoadedModel, load_model, warm_up
from app.inference.network import SessionOptions
from app.inference.network_heads import BlockInput, Head, SliceInput, probabilities
from app.inference.pipeline import NO_MALIGNANCY, analyse
from app.phantom.chest import phantom_ct
from app.phantom.files import write_metaimage
from app.phantom.nodules import NoduleSpec
from tests.foreign_networks import (
    BLOCK,
    BLOCK_ENTRY,
    SLICE,
    SLICE_ENTRY,
    block_network,
    slice_network,
    write_foreign_model,
)

CPU = SessionOptions(device="cpu", threads=1)
GRID = Grid.from_spacing((40, 120, 120), (2.0, 0.7, 0.7))
PLACES = [(10, 40, 40), (20, 80, 50), (28, 60, 90)]


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    index = np.moveaxis(np.indices(GRID.shape_zyx), 0, -1)
    hu = np.full(GRID.shape_zyx, -850, np.int16)
    for place, shade in zip(PLACES, (-500, -430, 100), strict=True):
        hu[np.linalg.norm((index - np.asarray(place)) * GRID.spacing_zyx_mm, axis=-1) <= 6] = shade
    return CtVolume(hu, GRID)


CANDIDATES = [Candidate(tuple(GRID.to_patient(place)), 12.0, 0.6) for place in PLACES]


def served(store: Path, entry: dict, network) -> LoadedModel:
    model = load_model(write_foreign_model(store, entry, network), CPU)
    warm_up(model)
    return model


def expected_logits(volume: CtVolume, crop, middle: slice) -> np.ndarray:
    crops = sample_crops(volume, [c.center_lps_mm for c in CANDIDATES], crop)
    inner = crops[:, middle if crops.shape[1] > 1 else slice(None), middle, middle]
    return 20 * (inner.mean(axis=(1, 2, 3)) - 0.4)


def test_one_slice_a_candidate_with_both_heads(tmp_path, volume):
    model = served(tmp_path, SLICE_ENTRY, slice_network())
    found = characterise(volume, CANDIDATES, model, 0.0).nodules
    logits = np.sort(expected_logits(volume, SLICE, slice(14, 19)))[::-1]
    assert [n.probability for n in found] == pytest.approx(expit(logits), abs=1e-5)
    assert [n.malignancy_probability for n in found] == pytest.approx(expit(2 * logits), abs=1e-5)
    assert malignancy_at(volume, [CANDIDATES[0].center_lps_mm], model) == pytest.approx(
        [expit(2 * expected_logits(volume, SLICE, slice(14, 19))[0])], abs=1e-5
    )
    assert [n.attributes for n in found] == [{}, {}, {}]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_slice_is_laid_out_as_the_manifest_says(layout, channels):
    crops = np.random.default_rng(0).random((4, 1, 6, 8), np.float32)
    given = SliceInput(name="x", layout=layout, channels=channels, value_range=(-1, 1)).arranged(crops)
    assert given.shape == ((4, 6, 8, channels) if layout == "nhwc" else (4, channels, 6, 8))
    last = given[..., -1] if layout == "nhwc" else given[:, -1]
    np.testing.assert_allclose(last, 2 * crops[:, 0] - 1, rtol=1e-6)


@pytest.mark.parametrize(("layout", "shape"), [("ncdhw", (2, 1, 5, 6, 7)), ("ndhwc", (2, 5, 6, 7, 1))])
def test_a_block_is_laid_out_as_the_manifest_says(layout, shape):
    crops = np.random.default_rng(0).random((2, 5, 6, 7), np.float32)
    given = BlockInput(name="x", layout=layout).arranged(crops)
    assert given.shape == shape
    np.testing.assert_array_equal(given.reshape(crops.shape), crops)


def test_a_block_a_candidate_without_malignancy(tmp_path, volume):
    model = served(tmp_path, BLOCK_ENTRY, block_network())
    found = characterise(volume, CANDIDATES, model, 0.0)
    logits = np.sort(expected_logits(volume, BLOCK, slice(7, 10)))[::-1]
    assert [n.probability for n in found.nodules] == pytest.approx(expit(logits), abs=1e-5)
    assert [n.malignancy_probability for n in found.nodules] == [None] * 3
    with pytest.raises(ModelError, match="does not judge malignancy") as refused:
        malignancy_at(volume, [CANDIDATES[0].center_lps_mm], model)
    assert refused.value.code == "no_malignancy"


def test_without_a_mask_the_detectors_sphere_is_measured_and_the_answer_says_so(tmp_path, volume):
    model = served(tmp_path, BLOCK_ENTRY, block_network())
    found = characterise(volume, CANDIDATES[2:], model, 0.0)
    assert [notice.code for notice in found.notices] == ["outline_from_detector"]
    assert 2 * found.nodules[0].radius_mm == pytest.approx(12.0, rel=0.05)


def test_a_network_that_judges_malignancy_only_leaves_the_detectors_word(tmp_path, volume):
    entry = {key: value for key, value in SLICE_ENTRY.items() if key != "nodule"}
    model = served(tmp_path, entry, slice_network())
    (found,) = characterise(volume, CANDIDATES[2:], model, 0.5).nodules
    assert found.probability == 0.6
    assert found.malignancy_probability == pytest.approx(
        expit(2 * expected_logits(volume, SLICE, slice(14, 19))[2]), abs=1e-5
    )


def test_a_graph_with_a_fixed_batch_answers_the_same(tmp_path, volume):
    free = served(tmp_path / "free", SLICE_ENTRY, slice_network())
    fixed = served(tmp_path / "fixed", SLICE_ENTRY, slice_network(batch=2))
    one, other = (characterise(volume, CANDIDATES, model, 0.0).nodules for model in (free, fixed))
    assert [n.probability for n in one] == [n.probability for n in other]
    assert len(one) == 3
    crops = np.zeros((3, 1, 32, 32), np.float32)
    assert fixed.characteriser({"crops": crops})["nodule_probability"].shape == (3,)


def test_a_whole_scan_is_answered_and_what_is_not_judged_is_null(tmp_path):
    ct = phantom_ct(
        shape_zyx=(48, 128, 128), spacing_zyx_mm=(3.0, 2.5, 2.5), nodules=(NoduleSpec(18.0), NoduleSpec(14.0)), seed=3
    )
    write_metaimage(ct.volume, tmp_path / "scan.mhd")
    model = served(tmp_path / "store", BLOCK_ENTRY, block_network())
    findings = analyse([tmp_path / "scan.mhd", tmp_path / "scan.raw"], model)
    answer = json.loads(result_from_findings(findings, None).model_dump_json())
    assert len(answer["nodules"]) >= 2
    for nodule in answer["nodules"]:
        assert (nodule["malignancy_probability"], nodule["label"], nodule["volume_interval_mm3"]) == (None, None, None)
    assert answer["malignancy_meaning"] == NO_MALIGNANCY
    assert "outline_from_detector" in {warning["code"] for warning in answer["acceptance"]["warnings"]}


@pytest.mark.parametrize(
    ("activation", "column", "row", "expected"),
    [
        ("logit", 0, [2.0, 9.0], expit(2.0)),
        ("logit", 1, [9.0, -2.0], expit(-2.0)),
        ("softmax", 1, [1.0, 3.0], expit(2.0)),
        ("softmax", 0, [1.0, 3.0], expit(-2.0)),
        ("softmax", 1, [800.0, 802.0], expit(2.0)),
        ("probability", 1, [0.3, 0.7], 0.7),
    ],
)
def test_what_a_head_says(activation, column, row, expected):
    head = Head(output="y", activation=activation, column=column)
    assert probabilities(head, np.array([row, row], np.float32), 2) == pytest.approx([expected] * 2, abs=1e-6)


def test_a_flat_output_is_one_column():
    head = Head(output="y", activation="probability")
    assert probabilities(head, np.array([0.25, 0.5], np.float32), 2) == pytest.approx([0.25, 0.5])


def test_logits_called_probabilities_are_refused():
    head = Head(output="y", activation="probability")
    with pytest.raises(ModelError, match="outside 0") as refused:
        probabilities(head, np.array([[0.2], [3.2]], np.float32), 2)
    assert refused.value.code == "network_output_invalid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"nodule": {"output": "absent", "activation": "logit"}}, "network_contract"),
        ({"input": {"name": "absent"}}, "network_contract"),
        ({"input": {"name": "image", "layout": "nchw"}}, "network_contract"),
        ({"nodule": {"output": "bright", "activation": "logit", "column": 1}}, "network_contract"),
    ],
)
def test_a_manifest_that_does_not_fit_its_graph_is_refused(tmp_path, changes, code):
    with pytest.raises(ModelError) as refused:
        served(tmp_path, {**SLICE_ENTRY, **changes}, slice_network())
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({**SLICE_ENTRY, "crop": BLOCK.model_dump(mode="json")}, "sees one slice"),
        ({key: value for key, value in BLOCK_ENTRY.items() if key != "nodule"}, "says `nodule`"),
        ({**BLOCK_ENTRY, "kind": "sideways"}, "sideways"),
        ({**BLOCK_ENTRY, "extra": 1}, "Extra inputs"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(tmp_path, entry, word):
    folder = write_foreign_model(tmp_path, {**entry, "crop": entry["crop"]}, block_network())
    with pytest.raises(ModelError, match=word) as refused:
        load_manifest(folder)
    assert refused.value.code == "manifest_invalid"


def test_a_range_of_one_value_is_refused():
    with pytest.raises(ValidationError, match="two different numbers"):
        SliceInput(name="x", value_range=(1.0, 1.0))
