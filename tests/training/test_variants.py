"""Cheaper graphs answer nearly as the one they were made of, and only what loses little is shipped."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from app.inference import network as network_module
from app.inference.manifest import NetworkVariant, VariantFigure, load_manifest
from app.inference.model_store import load_model, verify_model
from app.inference.network import SessionOptions, open_network
from training.quantise import between_first_and_last_convolutions, float16, int8
from training.variant_judgement import REPORTED_ONLY, Trial, mean_recall, report
from training.variants import _ship, _verdict_part, _with_verdict

CPU = SessionOptions(device="cpu", threads=1)


class Net(nn.Module):
    """The shape of ours in small: a stem, a residual body with an upsampling, a head, arithmetic behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 3, 2, 1)
        self.body = nn.Sequential(nn.Conv3d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm3d(8), nn.ReLU())
        self.down = nn.Conv3d(8, 16, 3, 2, 1)
        self.side = nn.Conv3d(16, 8, 1)
        self.merge = nn.Conv3d(8, 8, 3, 1, 1)
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.stem(volume * 2 - 1))
        fine = torch.relu(self.body(fine) + fine)
        coarse = nn.functional.interpolate(self.side(torch.relu(self.down(fine))), scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.head(torch.relu(self.merge(fine + coarse)))) * 1000


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    sizes = ({axis: 4 * torch.export.Dim(name) for axis, name in ((2, "z"), (3, "y"), (4, "x"))},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            Net().eval(), (torch.rand(1, 1, 8, 12, 16),), str(path), dynamo=True, input_names=["volume"],
            output_names=["scores"], dynamic_shapes=sizes, external_data=False, verbose=False,
        )  # fmt: skip
    return path.read_bytes()


@pytest.fixture(scope="module")
def volumes() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((1, 1, 16, 16, 16), dtype=np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def quantised(exported: bytes, volumes: list[np.ndarray]) -> bytes:
    return int8(exported, "volume", volumes)


def scores_of(model: bytes, volume: np.ndarray) -> np.ndarray:
    return np.asarray(open_network(model, CPU)({"volume": volume})["scores"])


def test_int8_answers_nearly_as_fp32_on_what_it_was_not_calibrated_with(exported, quantised):
    volume = np.random.default_rng(9).random((1, 1, 24, 16, 20), dtype=np.float32)
    expected = scores_of(exported, volume)
    difference = np.abs(scores_of(quantised, volume) - expected).max()
    assert 0 < difference < 0.1 * (expected.max() - expected.min())


def test_int8_leaves_the_first_and_the_last_convolution_alone(exported, quantised, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(quantised, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("QLinearAdd")) == (4, 2)
    assert sum("Conv" in kind and "QLinear" not in kind for kind in kinds) == 2


def test_int8_is_made_the_same_way_every_time(exported, quantised, volumes):
    assert int8(exported, "volume", volumes) == quantised


def test_int8_answers_alike_on_processors_that_would_saturate(quantised, volumes, monkeypatch):
    expected = scores_of(quantised, volumes[0])
    monkeypatch.setattr(network_module, "has_vnni", lambda: False)
    np.testing.assert_allclose(scores_of(quantised, volumes[0]), expected, atol=1e-3)


def test_float16_keeps_inputs_outputs_and_what_follows_the_last_convolution(exported, volumes):
    half = float16(exported)
    assert len(half) < len(exported)
    network = open_network(half, CPU)
    assert {value.type for value in (*network.session.get_inputs(), *network.session.get_outputs())} == {
        "tensor(float)"
    }
    np.testing.assert_allclose(scores_of(half, volumes[0]), scores_of(exported, volumes[0]), atol=2.0)
    weights = [t for t in onnx.load_from_string(half).graph.initializer if len(t.dims) == 5]
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT16}


def test_nothing_outside_the_body_is_made_cheaper(exported):
    graph = onnx.load_from_string(exported)
    names = between_first_and_last_convolutions(graph)
    kinds = [node.op_type for node in graph.graph.node if node.name in names]
    assert kinds.count("Conv") == 4
    assert "Sigmoid" not in kinds
    assert "Mul" not in kinds


def test_recall_is_taken_at_equal_numbers_of_marks():
    hits = [np.array([[True, False], [False, False], [False, True]]), np.array([[False], [True]])]
    scores = [np.array([0.9, 0.8, 0.1]), np.array([0.7, 0.2])]
    assert mean_recall(hits, scores, [1]) == pytest.approx(1 / 3)  # 0.9 and 0.8: one nodule of three
    assert mean_recall(hits, scores, [2]) == pytest.approx(2 / 3)  # and 0.7, 0.2
    assert mean_recall(hits, scores, [1, 100]) == pytest.approx((1 / 3 + 1) / 2)
    assert mean_recall(hits, [score / 2 for score in scores], [2]) == mean_recall(hits, scores, [2])


def test_what_is_only_reported_does_not_judge():
    figures = [
        VariantFigure(name="recall", value=0.9, fp32=0.9, n=9, data="tests"),
        VariantFigure(name=REPORTED_ONLY[1], value=0.5, fp32=1.5, n=9, data="tests"),
    ]
    variant = NetworkVariant(
        file="a.onnx", sha256="0" * 64, arithmetic="int8", max_abs_difference=0.0, figures=tuple(figures)
    )
    assert Trial("detector", "int8", variant).largest_loss == 0.0


def trial(folder: Path, role: str, name: str, value: float) -> Trial:
    file = f"{role}.{name}.onnx" if name == "int8" else f"{role}.onnx"
    figure = VariantFigure(name="recall", value=value, fp32=0.9, n=200, data="tests")
    return Trial(
        role,
        name,
        NetworkVariant(
            file=file,
            sha256=hashlib.sha256((folder / file).read_bytes()).hexdigest(),
            runtime="openvino" if name == "bf16" else "onnxruntime",
            arithmetic="int8" if name == "int8" else "bfloat16",
            max_abs_difference=0.01,
            figures=(figure,),
            seconds_ratio=0.5,
        ),
    )


@pytest.mark.parametrize(("value", "accepted"), [(0.9, True), (0.8951, True), (0.8949, False), (0.95, True)])
def test_half_a_point_lost_is_too_much(tiny_model_store, value, accepted):
    assert trial(tiny_model_store / "tiny" / "1.0.0", "detector", "bf16", value).accepted is accepted


def test_only_what_was_accepted_is_shipped_and_the_rest_is_told(tmp_path, tiny_model_store):
    model = Path(shutil.copytree(tiny_model_store / "tiny" / "1.0.0", tmp_path / "model"))
    workshop = Path(shutil.copytree(model, tmp_path / "workshop"))
    for role in ("detector", "characteriser"):
        shutil.copyfile(workshop / f"{role}.onnx", workshop / f"{role}.int8.onnx")
    (model / "characteriser.int8.onnx").write_bytes(b"of an earlier run")
    plain = _with_verdict(workshop, load_manifest(model))
    content = (workshop / "characteriser.int8.onnx").read_bytes()
    characteriser = trial(workshop, "characteriser", "int8", 0.8)
    trials = [
        trial(workshop, "detector", "int8", 0.9),
        replace(characteriser, verdict_part=_verdict_part(workshop, content, "int8", characteriser.variant)),
        trial(workshop, "detector", "bf16", 0.899),
    ]
    _ship(model, workshop, plain, trials, 31.0)
    manifest = verify_model(model)
    assert (manifest.detector.variants.keys(), manifest.characteriser.variants) == ({"int8", "bf16"}, {})
    assert manifest.characteriser.verdict is not None
    assert manifest.characteriser.verdict.variants == {}
    assert not (model / "characteriser.int8.verdict.onnx").exists()
    assert manifest.detector.bytes_per_voxel == 31.0
    assert (model / "detector.int8.onnx").is_file()
    assert not (model / "characteriser.int8.onnx").exists()
    assert load_model(model, CPU, "int8").precision == {"detector": "int8", "characteriser": "fp32"}
    better = [trials[0], replace(trials[1], variant=trial(workshop, "characteriser", "int8", 0.9).variant)]
    _ship(model, workshop, plain, better, 31.0)
    shipped = verify_model(model).characteriser.verdict
    assert shipped is not None
    assert shipped.variants["int8"].file == "characteriser.int8.verdict.onnx"
    assert shipped.variants["int8"].figures == better[1].variant.figures
    assert load_model(model, CPU, "int8").verdict is not None
    _ship(model, workshop, plain, trials, 31.0)
    said = report(manifest, trials, 0)
    assert "| characteriser | int8 | written off, largest loss 10.00 points |" in said
    assert "Research use only" in said
    assert json.loads((model / "manifest.json").read_text())["detector"]["variants"]["int8"]["figures"][0]["n"] == 200
