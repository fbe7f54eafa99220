"""Whatever arrives is answered: 200 or a problem that says what is wrong, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from app.api.problems import MEDIA_TYPE, Problem, problem_kinds
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder, left_in, make_model, shelved

WHOLE_PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nscan\r\n'
HEADERS = [b"Content-Disposition: form-data", b"Content-Type: x/y", b"Content-Transfer-Encoding: base64"]
PARAMETERS = [b'; name="files"', b'; filename="a.dcm"', b"; filename=", b'; name="series_uid"', b'; name="model"']
MARKS = [b"--b", b"--b--", b"\r\n", b"\r\n\r\n", b"--", b":", b";", b'"', b"1.2.3", b"standin", b"\x00\xff"]
PIECES = [WHOLE_PART, *HEADERS, *PARAMETERS, *MARKS]
bodies = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=20).map(b"".join)
media_types = st.one_of(
    st.just("multipart/form-data; boundary=b"),
    st.sampled_from(["", "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="b"']),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data = tmp_path_factory.mktemp("data")
    settings = Settings(temp_dir=uploads, data_dir=data, min_free_disk_bytes=0, max_request_bytes=200, max_files=3)
    with TestClient(create_app(settings, load=lambda _: shelved(make_model()), run=Recorder())) as running:
        yield running


@given(body=bodies, media_type=media_types, path=st.sampled_from(["/v1/predict", "/v1/batches"]))
def test_any_body_is_answered(client: TestClient, uploads: Path, body: bytes, media_type: str, path: str) -> None:
    answer = client.post(path, content=body, headers={"content-type": media_type})
    if answer.status_code != 200:
        problem = Problem.model_validate_json(answer.content)
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert problem.status == answer.status_code
        assert answer.status_code in {400, 413, 415, 422}
        assert problem.type.removeprefix("/problems#") in {kind.name for kind in problem_kinds()}
    assert left_in(uploads) == []
    assert left_in(client.app.state.desk.jobs.store.incoming) == []  # type: ignore[attr-defined]
