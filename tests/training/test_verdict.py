"""The part of the characteriser that judges gives what the whole gives, and costs no mask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.imaging.errors import ModelError
from app.inference.characterisation import characterise
from app.inference.findings import Candidate
from app.inference.model_store import load_model, verify_model
from app.inference.network import SessionOptions, open_network
from app.phantom.chest import phantom_ct
from tests.tiny_model import CROP, tiny_characteriser, write_tiny_model
from training.verdict import VERDICT_FILE, without_mask, write_verdict

CPU = SessionOptions(device="cpu", threads=1)
JUDGED = ("nodule_probability", "malignancy_probability", "attributes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with a verdict."""
    model = write_tiny_model(tmp_path)
    manifest = json.loads((model / "manifest.json").read_text())
    manifest["characteriser"]["verdict"] = write_verdict(model).model_dump()
    (model / "manifest.json").write_text(json.dumps(manifest))
    return model


def test_the_part_gives_the_same_bits_and_no_mask():
    whole = tiny_characteriser(CROP.size_px).SerializeToString()
    crops = np.random.default_rng(0).random((5, 3, CROP.size_px, CROP.size_px), dtype=np.float32)
    expected = open_network(whole, CPU)({"crops": crops})
    found = open_network(without_mask(whole), CPU)({"crops": crops})
    assert tuple(found) == JUDGED
    for name in JUDGED:
        np.testing.assert_array_equal(found[name], expected[name])


def test_candidates_are_judged_by_the_part_and_nodules_outlined_by_the_whole(folder: Path):
    model, asked = load_model(folder, CPU), []

    def watched(name, network):
        return lambda inputs: asked.append((name, len(inputs["crops"]))) or network(inputs)

    volume = phantom_ct(seed=1).volume
    where = [Candidate((x, 0.0, 0.0), 8.0, 0.9) for x in (-60.0, 0.0, 60.0)]
    judged = replace(
        model, verdict=watched("part", model.verdict), characteriser=watched("whole", model.characteriser)
    )  # fmt: skip
    found = characterise(volume, where, judged, 0.0)
    assert asked[0] == ("part", 3)
    assert [name for name, _ in asked[1:]] == ["whole"] * (len(asked) - 1)
    without = characterise(volume, where, replace(model, verdict=None), 0.0)
    assert [n.probability for n in found.nodules] == [n.probability for n in without.nodules]


def test_a_damaged_part_is_refused(folder: Path):
    (folder / VERDICT_FILE).write_bytes(b"something else")
    for check in (verify_model, lambda path: load_model(path, CPU)):
        with pytest.raises(ModelError) as refused:
            check(folder)
        assert refused.value.code == "hash_mismatch"


def test_a_variant_without_a_part_of_its_own_judges_with_the_whole(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["characteriser"]
    entry["variants"] = {"int8": {"file": entry["file"], "sha256": entry["sha256"], "arithmetic": "int8",
                                  "max_abs_difference": 0.0}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    model = load_model(folder, CPU, "int8")
    assert model.verdict is None
    assert model.judge is model.characteriser
