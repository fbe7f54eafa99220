"""The Open Inference Protocol, asked by Triton's own client and by hand, on real (tiny) networks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder
from tests.foreign_networks import BLOCK_ENTRY, block_network, write_foreign_model
from tests.jobs.installations import HandQueue
from tests.served import served
from tests.tiny_model import write_tiny_model

DETECTOR, CHARACTERISER = "/v2/models/tiny-detector", "/v2/models/tiny-characteriser"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    write_tiny_model(store)
    write_tiny_model(store, version="1.1.0")
    write_foreign_model(store, BLOCK_ENTRY, block_network())
    return store


def application(store: Path, data: Path, **changes: Any):
    settings = Settings(
        model_store=store,
        models=("tiny:1.0.0",),
        device="cpu",
        threads=1,
        min_free_disk_bytes=0,
        data_dir=data,
        **changes,
    )
    return create_app(settings, run=Recorder(), make_queue=lambda _: HandQueue())


@pytest.fixture(scope="module")
def client(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    app = application(store, tmp_path_factory.mktemp("data"), max_inference_bytes=4 << 20)
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="module")
def address(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server: Triton's client speaks HTTP over a socket of its own."""
    app = application(store, tmp_path_factory.mktemp("data"))
    with served(app) as port:
        yield f"127.0.0.1:{port}"


def crops(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3, 64, 64), np.float32)


def asking(values: np.ndarray, name: str = "crops", **more: Any) -> dict[str, Any]:
    tensor = {"name": name, "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}
    return {"inputs": [tensor], **more}


TRITON = """
import json, sys
import numpy as np
import tritonclient.http as http
client = http.InferenceServerClient(sys.argv[1])
found = {"live": client.is_server_live(), "ready": client.is_server_ready(), "server": client.get_server_metadata()}
for name in ("tiny-detector", "tiny-characteriser"):
    found[name] = client.get_model_metadata(name)
    found[name]["ready"] = [client.is_model_ready(name), client.is_model_ready(name, "1.1.0")]
found["absent"] = client.is_model_ready("absent-detector")
crops = np.load(sys.argv[2])
for binary in (True, False):
    given = http.InferInput("crops", list(crops.shape), "FP32")
    given.set_data_from_numpy(crops, binary_data=binary)
    wanted = [http.InferRequestedOutput("nodule_probability", binary_data=binary)]
    answer = client.infer("tiny-characteriser", [given], model_version="1.0.0", outputs=wanted, request_id="7")
    found[f"said {binary}"] = answer.as_numpy("nodule_probability").tolist()
    found["id"] = answer.get_response()["id"]
given.set_data_from_numpy(crops, binary_data=True)
whole = client.infer("tiny-characteriser", [given])
np.savez(sys.argv[3], **{name: whole.as_numpy(name) for name in ("attributes", "mask_probability")})
volume = np.load(sys.argv[4])
given = http.InferInput("volume", list(volume.shape), "FP32")
given.set_data_from_numpy(volume)
found["scores"] = client.infer("tiny-detector", [given]).as_numpy("scores").shape
try:
    client.infer("tiny-characteriser", [given])
except http.InferenceServerException as error:
    found["error"] = [error.status(), error.message()]
client.close()
print(json.dumps(found))
"""


def test_tritons_own_client_is_answered(address: str, store: Path, tmp_path: Path) -> None:
    """In a process of its own: the client patches the standard library for gevent."""
    model = load_model(store / "tiny/1.0.0", SessionOptions(device="cpu", threads=1))
    volume = np.random.default_rng(1).random((1, 1, 32, 24, 40), np.float32)
    np.save(tmp_path / "crops.npy", crops())
    np.save(tmp_path / "volume.npy", volume)
    files = [str(tmp_path / name) for name in ("crops.npy", "said.npz", "volume.npy")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRITON, address, *files],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["live"], found["ready"], found["absent"]) == (True, True, False)
    assert found["server"]["extensions"] == ["binary_tensor_data"]
    assert found["tiny-detector"] == {
        "name": "tiny-detector",
        "versions": ["1.0.0", "1.1.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "volume", "datatype": "FP32", "shape": [1, 1, -1, -1, -1]}],
        "outputs": [
            {"name": "boxes", "datatype": "FP32", "shape": [1, -1, 6]},
            {"name": "scores", "datatype": "FP32", "shape": [1, -1]},
        ],
        "ready": [True, True],
    }
    assert found["tiny-characteriser"]["inputs"] == [{"name": "crops", "datatype": "FP32", "shape": [-1, -1, 64, 64]}]
    expected = model.characteriser({"crops": crops()})
    assert found["said True"] == found["said False"] == expected["nodule_probability"].tolist()
    assert found["id"] == "7"
    with np.load(tmp_path / "said.npz") as said:
        for name in ("attributes", "mask_probability"):
            np.testing.assert_array_equal(said[name], expected[name])
    assert tuple(found["scores"]) == model.detector({"volume": volume})["scores"].shape
    assert found["error"][0] == "400"
    assert "takes crops" in found["error"][1]


def test_every_output_comes_where_none_is_named_and_batches_do_not_show(client: TestClient, store: Path) -> None:
    given = crops(19)[:, :1]
    answer = client.post(f"{CHARACTERISER}/infer", json=asking(given, id="x")).json()
    expected = load_model(store / "tiny/1.0.0", SessionOptions(device="cpu", threads=1)).characteriser({"crops": given})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny-characteriser", "1.0.0", "x")
    assert {output["name"] for output in answer["outputs"]} == set(expected)
    for output in answer["outputs"]:
        np.testing.assert_allclose(
            np.reshape(output["data"], output["shape"]), expected[output["name"]], rtol=1e-5, atol=1e-6
        )


def test_a_network_of_another_make_is_asked_by_the_common_interface(client: TestClient) -> None:
    told = client.get("/v2/models/foreign-characteriser").json()
    assert told["inputs"] == [{"name": "crops", "datatype": "FP32", "shape": [-1, 16, 16, 16]}]
    assert told["outputs"] == [{"name": "nodule_probability", "datatype": "FP32", "shape": [-1]}]
    given = np.full((2, 16, 16, 16), 0.4, np.float32)
    (output,) = client.post("/v2/models/foreign-characteriser/infer", json=asking(given)).json()["outputs"]
    assert output["data"] == pytest.approx([0.5, 0.5], abs=1e-5)


def binary(header: dict[str, Any], blob: bytes, length: int | str | None = None) -> dict[str, Any]:
    text = json.dumps(header).encode()
    headers = {"Inference-Header-Content-Length": str(len(text) if length is None else length)}
    return {"content": text + blob, "headers": headers}


def tensor(size: int, shape: tuple[int, ...] = (1, 1, 64, 64), **changes: Any) -> dict[str, Any]:
    entry = {"name": "crops", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
    return {"inputs": [{**entry, **changes}]}


FULL = 64 * 64 * 4


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        ({"content": b"{"}, "no valid JSON"),
        ({"content": b"[" * 100_000}, "no valid JSON"),
        ({"content": b"[]"}, "the body"),
        ({"json": {"inputs": []}}, "inputs"),
        ({"json": asking(crops(1), name="other")}, "takes crops"),
        ({"json": asking(crops(1)[0])}, "takes [-1, -1, 64, 64]"),
        ({"json": asking(crops(1)[..., :32])}, "takes [-1, -1, 64, 64]"),
        ({"json": asking(np.zeros((0, 3, 64, 64)))}, "-1 is any number from 1"),
        ({"json": asking(crops(1), outputs=[{"name": "other"}])}, "another output was asked for"),
        ({"json": {"inputs": [asking(crops(1))["inputs"][0]] * 2}}, "given twice"),
        ({"json": {"inputs": [{**asking(crops(1))["inputs"][0], "datatype": "FP64"}]}}, "is to be FP32"),
        ({"json": {"inputs": [{**asking(crops(1))["inputs"][0], "data": ["1"] * 12288}]}}, "else than numbers"),
        ({"json": {"inputs": [{**asking(crops(1))["inputs"][0], "data": [[1], [1, 2]]}]}}, "else than numbers"),
        ({"content": json.dumps(asking(crops(1) * np.nan)).encode()}, "no numbers"),
        ({"json": {"inputs": [{**asking(crops(1))["inputs"][0], "shape": [1 << 62, 4]}]}}, "12288 were sent"),
        ({"json": asking(crops(1), parameters={"shared_memory_region": "x"})}, "shared_memory_region"),
        (binary(tensor(FULL), b"\0" * (FULL - 4)), "bytes are left"),
        (binary(tensor(FULL), b"\0" * (FULL + 4)), "belong to no input"),
        (binary(tensor(8), b"\0" * 8), "takes 16384 bytes"),
        (binary(tensor(FULL), b"", length=10**9), "the body has"),
        (binary(tensor(FULL), b"", length="1e3"), "is no length"),
        (binary(tensor(FULL, data=[0.0]), b"\0" * FULL), "either"),
        ({"json": asking(crops(1)), "headers": {"Content-Encoding": "gzip"}}, "Compressed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_does_not_fit_is_an_error_of_the_protocol(client: TestClient, sent: dict[str, Any], word: str) -> None:
    answer = client.post(f"{CHARACTERISER}/infer", **sent)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert word in answer.json()["error"]


@pytest.mark.parametrize("shape", [(1, 1, 20, 32, 32), (1, 1, 32, 32, 4)])
def test_a_volume_that_the_detector_cannot_take_is_refused(client: TestClient, shape: tuple[int, ...]) -> None:
    answer = client.post(f"{DETECTOR}/infer", json=asking(np.zeros(shape), name="volume"))
    assert (answer.status_code, "multiple of 8" in answer.json()["error"]) == (400, True)


def test_a_body_over_the_limit_is_refused_while_it_arrives(client: TestClient) -> None:
    size = 5 << 20
    answer = client.post(f"{CHARACTERISER}/infer", **binary(tensor(size, (1, 320, 64, 64)), b"\0" * size))
    assert answer.status_code == 413
    assert "LUNGNODULE_MAX_INFERENCE_BYTES" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    ["/v2/models/absent-detector", "/v2/models/tiny", f"{DETECTOR}/versions/9.9.9/ready", f"{DETECTOR}/versions/x"],
)
def test_a_network_that_is_not_there_is_not_found(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "tiny-characteriser, tiny-detector" in answer.json()["error"]


def test_the_waiting_line_holds_for_networks_too(store: Path, tmp_path: Path) -> None:
    app = application(store, tmp_path, max_waiting=0)
    with TestClient(app) as client, app.state.service.line.place():
        answer = client.post(f"{CHARACTERISER}/infer", json=asking(crops(1)))
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert list(answer.json()) == ["error"]


def test_where_jobs_are_only_taken_in_no_network_is_served(store: Path, tmp_path: Path) -> None:
    with TestClient(application(store, tmp_path, worker_concurrency=0)) as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 501
        assert client.post(f"{CHARACTERISER}/infer", json=asking(crops(1))).status_code == 501


def test_refusals_are_counted_like_any_other(client: TestClient) -> None:
    client.post(f"{CHARACTERISER}/infer", content=b"{")
    text = client.get("/metrics").text
    assert 'lungnodule_rejects_total{code="malformed_request",status="400",type="invalid_inference"}' in text
