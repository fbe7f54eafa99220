"""A run that goes on from a shipped model begins with its weights, and only where it held out the same patients."""

import warnings

import pytest
import torch

from training.characteriser import Characteriser
from training.checkpoint import begin_with, start_file
from training.config import CharacteriserConfig, DataConfig, DetectorConfig, TrainingConfig
from training.detector import DecodedDetector, Detector
from training.served import Calibration, ServedCharacteriser
from training.splits import SplitError, split_patients, write_split
from training.starting_point import fill, initialisers, start_from


def small_config(folder, data) -> TrainingConfig:
    return TrainingConfig(
        name="small",
        runs=folder,
        data=DataConfig(root=data),
        characteriser=CharacteriserConfig(widths=(8, 8, 16)),
        detector=DetectorConfig(widths=(8, 8, 16, 16), blocks=(1, 1, 1), top=8),
    )


def with_statistics(network: torch.nn.Module, batch: torch.Tensor) -> torch.nn.Module:
    """A network whose normalisations are not those of a new one."""
    network.train()
    for _ in range(3):
        network(batch * torch.rand(1) + torch.rand(1))
    return network.eval()


def exported(network: torch.nn.Module, batch: torch.Tensor, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        any_number = ({0: torch.export.Dim("n")},) if batch.ndim == 4 else None
        torch.onnx.export(network.eval(), (batch,), str(path), dynamo=True, verbose=False, dynamic_shapes=any_number)


def test_weights_come_back_from_the_graph_that_holds_them(tmp_path):
    torch.manual_seed(0)
    crops = torch.rand(2, 3, 64, 64)
    network = with_statistics(Characteriser((8, 8, 16), 5), crops)
    exported(ServedCharacteriser(network, Calibration(2.0, 1.0), Calibration()), crops, tmp_path / "network.onnx")
    again = Characteriser((8, 8, 16), 5)
    fill(again, initialisers(tmp_path / "network.onnx"), "network.")
    with torch.no_grad():
        assert torch.allclose(network(crops).mask, again.eval()(crops).mask, atol=1e-4)
        assert torch.allclose(network(crops).nodule, again(crops).nodule, atol=1e-4)


def test_normalisations_that_the_exporter_folded_away_come_back_as_shifts(tmp_path):
    torch.manual_seed(0)
    volume = torch.rand(1, 1, 32, 32, 48)
    network = with_statistics(Detector((8, 8, 16, 16), (1, 1, 1)), volume)
    exported(DecodedDetector(network, spacing_mm=1.0, top=8), volume, tmp_path / "network.onnx")
    weights = initialisers(tmp_path / "network.onnx")
    again = Detector((8, 8, 16, 16), (1, 1, 1))
    fill(again, weights, "detector.")
    with torch.no_grad():
        assert torch.allclose(network(volume).logit, again.eval()(volume).logit, atol=1e-4)
    with pytest.raises(KeyError, match="stem"):
        fill(again, {name: w for name, w in weights.items() if "stem" not in name}, "detector.")


def test_weights_beside_the_checkpoint_are_begun_with(tmp_path):
    first, second = Detector((8, 8, 16, 16), (1, 1, 1)), Detector((8, 8, 16, 16), (1, 1, 1))
    torch.save(first.state_dict(), tmp_path / start_file("detector"))
    begin_with(second, tmp_path / start_file("detector"))
    assert torch.equal(first.heads.weight, second.heads.weight)
    begin_with(second, tmp_path / start_file("characteriser"))


def test_a_model_of_another_split_is_refused(tmp_path, monkeypatch):
    ours = split_patients([f"P{n}" for n in range(20)], 5, seed=1)
    theirs = split_patients([f"P{n}" for n in range(20)], 5, seed=2)
    model = tmp_path / "model"
    model.mkdir()
    write_split(model / "split.json", theirs)
    monkeypatch.setattr("training.starting_point.prepare", lambda _config: type("Prepared", (), {"split": ours}))
    with pytest.raises(SplitError, match="was trained on split"):
        start_from(small_config(tmp_path, tmp_path), 0, model)
