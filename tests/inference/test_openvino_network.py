"""The OpenVINO runtime answers as ONNX Runtime does, and refuses as it does; skipped where it is not installed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.imaging.errors import ModelError
from app.inference.network import SessionOptions, open_network
from app.inference.openvino_network import PROVIDER, has_openvino, open_openvino
from tests.inference.test_network import doubler
from tests.tiny_model import tiny_characteriser

CPU = SessionOptions(device="cpu", threads=1)

pytestmark = pytest.mark.skipif(not has_openvino(), reason="OpenVINO, an optional package, is not installed")


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).random((3, 2, 64, 64), dtype=np.float32)


def test_it_answers_as_onnx_runtime_does(crops):
    model = tiny_characteriser(64).SerializeToString()
    here, there = (open_openvino(model, CPU, bfloat16=False), open_network(model, CPU))
    assert (here.execution_provider, here.inputs.keys()) == (PROVIDER, there.inputs.keys())
    expected = there({"crops": crops})
    found = here({"crops": crops})
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_an_answer_is_not_overwritten_by_the_next(crops):
    run = open_openvino(tiny_characteriser(64).SerializeToString(), CPU, bfloat16=False)
    first = run({"crops": crops})
    before = {name: values.copy() for name, values in first.items()}
    run({"crops": 1 - crops})
    for name, values in before.items():
        np.testing.assert_array_equal(first[name], values)


def test_threads_take_turns_and_get_their_own_answers():
    run = open_openvino(doubler(), CPU, bfloat16=False)
    rows = [np.full((1 + n % 3, 4), n, np.float32) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda row: run({"x": row})["y"], rows))
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer, 2 * row)


@pytest.mark.parametrize(
    "inputs",
    [{"x": np.zeros((2, 5), np.float32)}, {"x": np.zeros((2, 4), np.float64)}, {"z": np.zeros((2, 4), np.float32)}],
    ids=["shape", "type", "name"],
)
def test_arrays_that_do_not_fit_are_a_typed_error(inputs):
    with pytest.raises(ModelError) as refused:
        open_openvino(doubler(), CPU, bfloat16=False)(inputs)
    assert (refused.value.code, refused.value.values["execution_provider"]) == ("inference_failed", PROVIDER)


@pytest.mark.parametrize("content", [b"", b"garbage", doubler()[:-20]], ids=["empty", "garbage", "truncated"])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(ModelError) as refused:
        open_openvino(content, CPU, bfloat16=False, name="doubler.onnx")
    assert (refused.value.code, refused.value.values) == ("network_invalid", {"file": "doubler.onnx"})


def test_weights_outside_the_model_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenVINO itself would read them from the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    with pytest.raises(ModelError) as refused:
        open_openvino(doubler(external="twice.bin"), CPU, bfloat16=False)
    assert refused.value.code == "network_invalid"


def test_it_says_when_it_computes_otherwise_than_asked():
    """Either the processor has bfloat16 instructions, or there is a notice."""
    run = open_openvino(doubler(), CPU, bfloat16=True)
    actual = run.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert [notice.code for notice in run.notices] == ([] if actual == "bf16" else ["precision_fallback"])
