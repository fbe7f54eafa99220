"""A run killed in the middle ends as one that was not, and what is exported is a model that the service loads."""

import numpy as np
import pytest
import torch

from app.imaging.preprocessing import CropSpec
from app.inference.manifest import OperatingPointEntry
from app.inference.model_store import load_model, verify_model
from app.inference.network import SessionOptions
from training import train_characteriser as characteriser_training
from training import train_detector as detector_training
from training.config import CharacteriserConfig, DetectorConfig, TrainingConfig
from training.crops import CACHE_SIZE_PX, CandidatePatches
from training.decisions import Decisions, read_decisions, write_decisions
from training.export import export
from training.inserted_stacks import InsertedStacks, make_inserted_stacks
from training.nodule_stacks import NoduleStacks
from training.splits import split_patients, write_split
from training.train import fold_folder
from training.train_characteriser import CharacteriserData, train_characteriser
from training.train_detector import train_detector

from tests.training.test_insertion import bank, ellipsoid_background  # isort: skip

RATINGS = ("NumAnnotations", "Malignancy", "Texture", "Spiculation", "Lobulation", "Margin", "Calcification")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_config(folder) -> TrainingConfig:
    return TrainingConfig(
        name="tiny",
        runs=folder,
        bfloat16=False,
        characteriser=CharacteriserConfig(
            widths=(8, 8, 8),
            steps=4,
            patches_per_step=6,
            nodules_per_patch_batch=2,
            stacks_per_step=2,
            inserted_per_step=2,
        ),
        detector=DetectorConfig(
            widths=(4, 8, 8, 8), blocks=(1, 1, 1), steps=4, crops_per_step=1, crop_voxels=32, top=8
        ),
    )


def blob(size=CACHE_SIZE_PX, radius=6) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return (np.hypot(y, x) < radius).astype(np.uint8) * 200


def tiny_data() -> CharacteriserData:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (12, CACHE_SIZE_PX, CACHE_SIZE_PX)).astype(np.uint8)
    is_nodule = np.arange(12) % 3 == 0
    patients = np.array([f"P{i}" for i in range(12)])
    patches = CandidatePatches(
        noise + blob() * is_nodule[:, None, None], is_nodule, np.where(is_nodule, np.arange(12), -1), patients, patients
    )
    crops = noise[:6] + blob()
    stacks = NoduleStacks(
        crops=crops,
        reader_fraction=np.repeat((blob() > 0)[None], 6, axis=0).astype(np.uint8) * 255,
        first_slice=np.array([0, 3]),
        slice_count=np.array([3, 3]),
        slice_spacing_mm=np.array([2.5, 1.0], np.float32),
        pixel_spacing_mm=np.array([0.7, 0.7], np.float32),
        patient_id=np.array(["P0", "P1"]),
        series_uid=np.array(["1.2", "1.3"]),
        ratings=np.array([[4, 5, 5, 4, 3, 2, 6], [4, 1, 5, 1, 1, 5, 3]], np.float32),
        rating_names=RATINGS,
    )
    inserted = InsertedStacks(crops, stacks.reader_fraction, np.array([0]), np.array([6]))
    return CharacteriserData.of_patients(patches, stacks, inserted, set(patients))


def weights(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def dies_at(function, call):
    """The function, until it is called for the ``call``-th time."""
    calls = []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*arguments)

    return dying


def test_a_killed_characteriser_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    config, data = tiny_config(tmp_path), tiny_data()
    whole = weights(train_characteriser(config, data, tmp_path / "whole", seed=3))
    monkeypatch.setattr(characteriser_training, "SAVE_EVERY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(characteriser_training, "_losses", dies_at(characteriser_training._losses, 4))
        with pytest.raises(KeyboardInterrupt):
            train_characteriser(config, data, tmp_path / "killed", seed=3)
    counted = dies_at(characteriser_training._losses, 3)
    monkeypatch.setattr(characteriser_training, "_losses", counted)
    assert_same(whole, weights(train_characteriser(config, data, tmp_path / "killed", seed=3)))


def test_a_killed_detector_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    config, backgrounds = tiny_config(tmp_path), [ellipsoid_background()]
    whole = weights(train_detector(config, backgrounds, bank(), tmp_path / "whole", seed=3))
    monkeypatch.setattr(detector_training, "SAVE_EVERY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(detector_training, "detector_losses", dies_at(detector_training.detector_losses, 4))
        with pytest.raises(KeyboardInterrupt):
            train_detector(config, backgrounds, bank(), tmp_path / "killed", seed=3)
    monkeypatch.setattr(detector_training, "detector_losses", dies_at(detector_training.detector_losses, 3))
    assert_same(whole, weights(train_detector(config, backgrounds, bank(), tmp_path / "killed", seed=3)))


def test_a_checkpoint_of_another_configuration_is_not_resumed(tmp_path):
    config, data = tiny_config(tmp_path), tiny_data()
    first = weights(train_characteriser(config, data, tmp_path / "run", seed=3))
    other = config.model_copy(update={"characteriser": config.characteriser.model_copy(update={"learning_rate": 1e-4})})
    second = weights(train_characteriser(other, data, tmp_path / "run", seed=3))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_only_the_named_patients_are_learnt_from():
    data = tiny_data()
    some = CharacteriserData.of_patients(data.patches, data.stacks, data.inserted, {"P1", "P3"})
    assert set(some.patches.patient_id[some.patch_rows]) == {"P1", "P3"}
    assert set(some.stacks.patient_id[some.stack_rows]) == {"P1"}


def test_an_exported_run_is_a_verified_model_that_the_service_loads(tmp_path):
    config = tiny_config(tmp_path / "runs")
    folder = fold_folder(config, 0)
    train_characteriser(config, tiny_data(), folder, seed=3)
    train_detector(config, [ellipsoid_background()], bank(), folder, seed=3)
    write_split(config.folder / "split.json", split_patients([f"P{i}" for i in range(12)], 5, 1))
    with pytest.raises(FileNotFoundError, match="evaluate"):
        export(config, fold=0, store=tmp_path / "store")
    points = {"balanced": OperatingPointEntry(threshold=0.4, description="tried")}
    decisions = Decisions(operating_points=points, default_operating_point="balanced")
    write_decisions(config.folder / "evaluation-fold0.json", decisions)
    assert read_decisions(config.folder / "evaluation-fold0.json") == decisions
    exported = export(config, fold=0, store=tmp_path / "store")
    manifest = verify_model(exported)
    assert manifest.detector.parity.max_abs_difference < 1e-3
    assert manifest.characteriser.attribute_names == tuple(n.lower() for n in config.characteriser.attributes)
    model = load_model(exported, SessionOptions(device="cpu", threads=1))
    answer = model.characteriser({"crops": np.random.default_rng(0).random((5, 3, 64, 64), np.float32)})
    assert answer["nodule_probability"].shape == (5,)
    assert (exported / "MODEL_CARD.md").read_text().startswith("# tiny 0.1.0")
    assert (exported / "split.json").exists()


def test_inserted_stacks_reach_beyond_the_nodule_and_start_and_end_empty():
    stacks = make_inserted_stacks([ellipsoid_background((96, 96, 96))], bank(), CropSpec(), 3, seed=1)
    assert len(stacks.first_slice) == len(stacks.slice_count) == 3
    assert stacks.slice_count.sum() == len(stacks.crops) == len(stacks.mask)
    for first, count in zip(stacks.first_slice, stacks.slice_count, strict=True):
        inside = stacks.mask[first : first + count].reshape(count, -1).any(axis=1)
        assert not inside[0]
        assert not inside[-1]
        assert inside[count // 2]
        middle = stacks.mask[first + np.flatnonzero(inside)[inside.sum() // 2]]
        rows, columns = np.nonzero(middle)
        assert abs(rows.mean() - CACHE_SIZE_PX // 2) < 6
        assert abs(columns.mean() - CACHE_SIZE_PX // 2) < 6
