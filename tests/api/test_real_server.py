"""The service as it runs: uvicorn on a loopback port, real uploads, a real (tiny) model, over both HTTP parsers."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from socket import create_connection

import numpy as np
import pytest

from app.api.schemas import AnalysisResult
from app.main import create_app
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.settings import Settings
from tests.api.standins import left_in
from tests.served import served


@pytest.fixture(scope="module")
def phantom() -> PhantomCt:
    return phantom_ct(noise_hu=5.0, seed=3)


@pytest.fixture(scope="module")
def scan_zip(phantom: PhantomCt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    with zipfile.ZipFile(folder / "series.zip", "w") as archive:
        for path in write_dicom_series(phantom.volume, folder / "series"):
            archive.write(path, path.name)
    return folder / "series.zip"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module", params=["h11", "httptools"])
def port(request: pytest.FixtureRequest, tiny_model_store: Path, uploads: Path) -> Iterator[int]:
    """A running service."""
    if request.param == "httptools":
        pytest.importorskip("httptools")
    settings = Settings(
        model_store=tiny_model_store,
        models=("tiny",),
        device="cpu",
        threads=1,
        temp_dir=uploads,
        upload_grace_s=0.2,
        min_upload_bytes_per_s=1e6,
        max_request_bytes=64 << 20,
    )
    with served(create_app(settings), http=request.param) as listening:
        yield listening


def test_a_zip_sent_with_curl_comes_back_as_a_result(port: int, scan_zip: Path, uploads: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(
        [curl, "-sS", "--fail-with-body", "-F", f"files=@{scan_zip}", "-F", "operating_point=sensitive",
         f"http://127.0.0.1:{port}/v1/predict"],
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    result = AnalysisResult.model_validate_json(done.stdout)
    assert result.model.name == "tiny"
    assert result.operating_point.name == "sensitive"
    assert result.acceptance.source_format == "dicom"
    deadline = time.monotonic() + 20  # the upload is removed once the answer is out
    while left_in(uploads) and time.monotonic() < deadline:
        pass
    assert left_in(uploads) == []


def test_loose_files_come_back_as_the_same_series(port: int, scan_zip: Path, phantom: PhantomCt) -> None:
    body = b""
    for path in sorted((scan_zip.parent / "series").iterdir()):
        body += b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
        body += path.read_bytes() + b"\r\n"
    status, answer = post(port, body + b"--b--\r\n")
    assert status == 200, answer
    result = AnalysisResult.model_validate(answer)
    assert result.series.shape_zyx == phantom.volume.grid.shape_zyx
    assert np.allclose(result.series.affine_index_zyx_to_lps_mm, phantom.volume.grid.affine, atol=1e-3)


def test_a_refusal_arrives_although_the_body_is_still_being_sent(port: int) -> None:
    """A client that sends everything before it reads must not meet a reset connection instead of the answer."""
    status, problem = post(port, b"x" * (16 << 20), content_type="text/plain")
    assert (status, problem["code"]) == (415, "unsupported_media_type")


def test_a_slow_upload_is_answered_408(port: int, uploads: Path) -> None:
    with create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"upload_too_slow"' in answer
    assert left_in(uploads) == []


def test_ready_and_metrics_name_the_provider(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/readyz")
    assert json.loads(connection.getresponse().read())["execution_provider"] == "CPUExecutionProvider"
    connection.request("GET", "/metrics")
    assert b'provider="CPUExecutionProvider"} 1.0' in connection.getresponse().read()
    connection.close()


def post(port: int, body: bytes, content_type: str = "multipart/form-data; boundary=b") -> tuple[int, dict[str, str]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/predict", body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()
