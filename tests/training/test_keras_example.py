"""From Keras to an answer over HTTP: a few steps on drawn patches, exported by Keras, served by its manifest."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from starlette.testclient import TestClient

from app.evaluation.estimates import Estimate
from app.inference.model_store import load_model, verify_model, warm_up
from app.inference.network import SessionOptions
from app.main import create_app
from app.phantom.chest import phantom_ct
from app.phantom.files import write_metaimage
from app.phantom.nodules import NoduleSpec
from app.settings import Settings
from tests.jobs.installations import HandQueue
from tests.tiny_model import write_tiny_model
from training import keras_example
from training.crops import CACHE_SIZE_PX, CandidatePatches
from training.keras_example import fit, group_of, images, run, write_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's own


def drawn_patches(count: int = 96) -> CandidatePatches:
    """Dark noise; every other patch has a bright disc at its middle. A patient has four."""
    rng = np.random.default_rng(0)
    crops = rng.integers(20, 60, (count, CACHE_SIZE_PX, CACHE_SIZE_PX), dtype=np.uint8)
    is_nodule = np.arange(count) % 2 == 0
    rows, columns = np.indices(crops.shape[1:]) - CACHE_SIZE_PX // 2
    crops[np.ix_(is_nodule)] = np.where(np.hypot(rows, columns) < 9, 200, crops[is_nodule])
    patient = np.array([f"P{n // 4}" for n in range(count)])
    return CandidatePatches(crops, is_nodule, np.where(is_nodule, np.arange(count), -1), patient, patient)


@pytest.fixture(scope="module")
def trained():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, at its import
        patches = drawn_patches()
        return patches, fit(patches, np.ones(len(patches.crops), bool), steps=12)


def test_keras_and_the_service_say_the_same_numbers(trained, tmp_path: Path) -> None:
    patches, network = trained
    shipped = write_tiny_model(tmp_path / "shipped")
    outcome = write_model(network, tmp_path / "store", shipped, Estimate(0.9, 0.8, 1.0, 5), {"balanced": 0.5})
    verify_model(outcome.folder)
    model = load_model(outcome.folder, SessionOptions(device="cpu", threads=1))
    warm_up(model)
    seen = images(patches.crops)
    said = model.characteriser({"crops": np.moveaxis(seen, -1, 1)})["nodule_probability"]
    assert said == pytest.approx(expit(network.predict(seen, verbose=0)[:, 0]), abs=1e-5)
    assert len(np.unique(said)) > 1
    assert outcome.parity < 1e-4
    assert model.manifest.malignancy is None


def test_a_ct_is_answered_over_http_by_the_network_that_keras_exported(trained, tmp_path: Path) -> None:
    _, network = trained
    store = tmp_path / "store"
    write_model(network, store, write_tiny_model(tmp_path / "shipped"), Estimate(0.9, 0.8, 1.0, 5), {"balanced": 0.0})
    ct = phantom_ct(shape_zyx=(48, 128, 128), spacing_zyx_mm=(3.0, 2.5, 2.5), nodules=(NoduleSpec(18.0),), seed=3)
    write_metaimage(ct.volume, tmp_path / "scan.mhd")
    settings = Settings(model_store=store, models=("keras-example",), data_dir=tmp_path / "data", device="cpu")
    with TestClient(create_app(settings, make_queue=lambda _database: HandQueue())) as client:
        parts = [("files", (name, (tmp_path / name).read_bytes())) for name in ("scan.mhd", "scan.raw")]
        answer = client.post("/v1/predict", files=parts)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["model"]["name"] == "keras-example"
    assert document["nodules"]
    assert {nodule["malignancy_probability"] for nodule in document["nodules"]} == {None}


def test_no_patient_is_learnt_from_and_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    patches, learnt = drawn_patches(), []

    class Constant:
        def predict(self, given, **_how):
            return np.zeros((len(given), 1), np.float32)

    def watched(_patches, learn, *, steps):
        learnt.append(learn)
        return Constant()

    monkeypatch.setattr(keras_example, "fit", watched)
    monkeypatch.setattr(keras_example, "write_model", lambda _model, _store, _shipped, judged, thresholds: judged)
    judged = run(patches, tmp_path, tmp_path, steps=1)
    group = group_of(patches.patient_id)
    assert judged.n == int((group < 2).sum()) > 0
    assert not set(patches.patient_id[learnt[0]]) & set(patches.patient_id[group < 3])
