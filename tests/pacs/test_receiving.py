"""STOW-RS and DIMSE from outside: who may send, what is answered, and that only what is safe is acknowledged."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from dicomweb_client.api import DICOMwebClient
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from starlette.testclient import TestClient

from app.main import create_app
from app.pacs.config import Listener
from app.pacs.entity import Entity
from app.pacs.errors import FailureReason, ListenerUnavailable
from app.pacs.listener import listening
from app.pacs.shelf import OPEN
from app.phantom.dicom_series import CTImageStorage
from app.settings import Settings
from tests.api.standins import Recorder, left_in, make_model, shelved
from tests.jobs.installations import HandQueue
from tests.pacs.orthanc import echoscu, running_orthanc, storescu, until
from tests.pacs.pacs_worlds import PacsWorld, capture, config, pacs_world, study_of, write_series
from tests.pacs.test_shelf import make_due, series_rows

CONFIG = """
[[rules]]
name = "chest"
body_part = ["CHEST"]
min_instances = 3
[targets.archive]
kind = "dicomweb"
url = "http://127.0.0.1:9/"
[receive]
max_instance_bytes = 20000
"""


@contextmanager
def client_with(folder: Path, text: str | None = CONFIG, **settings: Any) -> Iterator[TestClient]:
    path = None
    if text is not None:
        path = folder / "pacs.toml"
        path.write_text(text)
    chosen = Settings(data_dir=folder / "data", pacs_config=path, **settings)
    app = create_app(
        chosen, load=lambda _settings: shelved(make_model()), run=Recorder(), make_queue=lambda _database: HandQueue()
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_with(tmp_path) as made:
        yield made


def related(parts: Sequence[bytes], part_type: str = "application/dicom") -> dict[str, Any]:
    """Body and headers of multipart/related."""
    boundary = uuid.uuid4().hex
    body = b"".join(f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode() + part + b"\r\n" for part in parts)
    told = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return {"content": body + f"--{boundary}--\r\n".encode(), "headers": {"Content-Type": told}}


def reasons(answer: dict[str, Any], tag: str) -> list[int]:
    return [item["00081197"]["Value"][0] for item in answer.get(tag, {"Value": []})["Value"]]


def shelf_rows(client: TestClient) -> list[dict[str, Any]]:
    class _World:
        class here:  # noqa: N801
            jobs = client.app.state.desk.jobs  # type: ignore[attr-defined]

    return series_rows(_World)  # type: ignore[arg-type]


def test_what_is_stored_is_listed_and_waits_for_the_rest(client: TestClient, tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    answer = client.post("/dicom-web/studies", **related([path.read_bytes() for path in paths]))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    stored = {item["00081155"]["Value"][0] for item in answer.json()["00081199"]["Value"]}
    assert stored == {str(dcmread(path).SOPInstanceUID) for path in paths}
    assert [row["state"] for row in shelf_rows(client)] == [OPEN]


def test_some_stored_and_some_not_is_202_and_says_which(client: TestClient, tmp_path: Path) -> None:
    good, other = write_series(tmp_path / "ct")[0], tmp_path / "sc.dcm"
    refused = capture("job", "sc", "1.2.3")
    refused.save_as(other, enforce_file_format=True)
    answer = client.post("/dicom-web/studies", **related([good.read_bytes(), other.read_bytes(), b"rubbish"]))
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert reasons(answer.json(), "00081198") == [FailureReason.SOP_CLASS_NOT_SUPPORTED]
    assert answer.json()["00081198"]["Value"][0]["00081155"]["Value"] == [str(refused.SOPInstanceUID)]
    assert reasons(answer.json(), "0008119A") == [FailureReason.CANNOT_UNDERSTAND]


def test_nothing_stored_is_409(client: TestClient) -> None:
    answer = client.post("/dicom-web/studies", **related([b"rubbish"]))
    assert answer.status_code == 409
    assert reasons(answer.json(), "0008119A") == [FailureReason.CANNOT_UNDERSTAND]


def test_an_instance_over_the_limit_is_out_of_resources(client: TestClient, tmp_path: Path) -> None:
    def grow(dataset: Dataset, _z: int) -> None:
        dataset.ImageComments = "x" * 9000
        dataset.add_new(0x00091001, "OB", bytes(20_000))

    paths = write_series(tmp_path / "ct", edit=grow)
    answer = client.post("/dicom-web/studies", **related([paths[0].read_bytes()]))
    assert (answer.status_code, reasons(answer.json(), "00081198")) == (409, [FailureReason.OUT_OF_RESOURCES])


def test_an_instance_of_another_study_is_refused_where_a_study_is_named(client: TestClient, tmp_path: Path) -> None:
    path = write_series(tmp_path / "ct")[0]
    assert client.post(f"/dicom-web/studies/{study_of(path)}", **related([path.read_bytes()])).status_code == 200
    answer = client.post("/dicom-web/studies/1.2.3", **related([path.read_bytes()]))
    assert (answer.status_code, reasons(answer.json(), "00081198")) == (409, [FailureReason.DOES_NOT_MATCH])


def test_xml_for_who_asks_for_it(client: TestClient, tmp_path: Path) -> None:
    sent = related([write_series(tmp_path / "ct")[0].read_bytes(), b"rubbish"])
    sent["headers"]["Accept"] = "application/dicom+xml"
    answer = client.post("/dicom-web/studies", **sent)
    root = ET.fromstring(answer.content)
    space = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    assert [each.get("keyword") for each in root] == ["ReferencedSOPSequence", "OtherFailuresSequence"]
    assert root.find(f"{space}DicomAttribute/{space}Item/{space}DicomAttribute").get("vr") == "UI"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 415, "unsupported_media_type"),
        (
            {"headers": {"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=x'}},
            415,
            "unsupported_media_type",
        ),
        ({"headers": {"Content-Type": "multipart/related"}}, 400, "boundary_missing"),
        ({"content": b"--x\r\nContent-Type: image/png\r\n\r\nabc\r\n--x--\r\n"}, 400, "malformed_upload"),
        ({"content": b"--x\r\nContent-Type: application/dicom\r\n\r\nabc"}, 400, "upload_truncated"),
        ({"content": b"--x\r\nContent-Type: application/dicom\r\n\r\n" + bytes(9000)}, 413, "request_too_large"),
        ({"content": b"--x--\r\n"}, 422, "empty_upload"),
    ],
)
def test_a_body_that_is_none_is_a_problem(tmp_path: Path, change: dict[str, Any], status: int, code: str) -> None:
    sent = {"content": b"", "headers": {"Content-Type": "multipart/related; boundary=x"}, **change}
    with client_with(tmp_path, max_request_bytes=8000) as client:
        answer = client.post("/dicom-web/studies", **sent)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_without_a_configuration_there_is_no_such_resource(tmp_path: Path) -> None:
    with client_with(tmp_path, None) as client:
        for answer in (client.post("/dicom-web/studies", **related([b"x"])), client.get("/v1/jobs/x/pacs")):
            assert (answer.status_code, answer.json()["code"]) == (404, "pacs_not_configured")
        job = client.post("/v1/jobs", files={"files": ("a.dcm", b"scan")}).json()
        assert job["links"]["pacs"] is None
        assert [each["links"]["pacs"] for each in client.get("/v1/jobs").json()["jobs"]] == [None]


def test_results_are_sent_to_a_named_pacs_and_to_no_address(client: TestClient) -> None:
    job = client.post("/v1/jobs", files={"files": ("a.dcm", b"scan")}).json()
    sent = client.post(job["links"]["pacs"], json={"target": "archive", "kinds": ["sr", "seg"]})
    assert sent.status_code == 202
    (told,) = client.get(job["links"]["pacs"]).json()["returns"]
    assert (told["target"], told["kinds"], told["state"]) == ("archive", ["sr", "seg"], "waiting")
    refused = client.post(job["links"]["pacs"], json={"target": "http://169.254.169.254/", "kinds": ["sr"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_target")
    assert client.post("/v1/jobs/none/pacs", json={"target": "archive", "kinds": ["sr"]}).status_code == 404


def test_a_dicomweb_client_is_understood(client: TestClient, tmp_path: Path) -> None:
    """dicomweb-client's own request, carried by the test client."""
    sent: dict[str, Any] = {}

    class Session:
        def __init__(self) -> None:
            self.headers: dict[str, str] = {}
            self.verify, self.auth, self.cert = None, None, None

        def post(self, url: str, data: Any, headers: dict[str, str], **_: Any) -> Any:
            sent.update(data=data if isinstance(data, bytes) else b"".join(data), headers=headers)
            raise ConnectionResetError

    datasets = [dcmread(path) for path in write_series(tmp_path / "ct")]
    caller = DICOMwebClient("http://ours/dicom-web", session=Session())  # type: ignore[arg-type]
    caller.set_http_retry_params(retry=False)
    with pytest.raises(ConnectionResetError):
        caller.store_instances(datasets)
    answer = client.post("/dicom-web/studies", content=sent["data"], headers=sent["headers"])
    assert (answer.status_code, len(answer.json()["00081199"]["Value"])) == (200, 4)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[PacsWorld]:
    with pacs_world(tmp_path, chosen=config(receive={"max_instance_bytes": 300_000})) as made:
        yield made


@contextmanager
def listener(world: PacsWorld, **changes: Any) -> Iterator[int]:
    settings = Listener.model_validate({"port": 0, "calling_ae_titles": ["CT1"], "idle_timeout_s": 20, **changes})
    before = open_sockets()
    with listening(settings, world.pacs.shelf, world.pacs.scratch) as port:
        yield port
    until(lambda: open_sockets() <= before, "every connection is closed", 20)


def open_sockets() -> set[str]:
    """Of this process."""
    found = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(file.readlink()))
    return {what for what in found if what.startswith("socket:")}


def test_a_scanner_sends_by_dimse(world: PacsWorld) -> None:
    paths = write_series(world.folder / "ct")
    with listener(world) as port:
        assert echoscu(port, called="LUNGNODULE", calling="CT1") == 0
        assert storescu(port, paths, called="LUNGNODULE") == 0
    make_due(world)
    assert world.pacs.handover.hand_over_due() == 1
    (job,) = world.jobs()
    sent = {str(dcmread(path).SOPInstanceUID) for path in paths}
    with world.here.jobs.store.scan(job.scan_id) as files:
        got = {str(dcmread(file.path).SOPInstanceUID) for file in files}
    assert got == sent
    assert list(world.pacs.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "called", "calling"),
    [
        ({}, "LUNGNODULE", "STRANGER"),
        ({}, "OTHER", "CT1"),
        ({"calling_addresses": ["10.0.0.0/8"]}, "LUNGNODULE", "CT1"),
    ],
)
def test_nobody_else_may_send(world: PacsWorld, settings: dict[str, Any], called: str, calling: str) -> None:
    paths = write_series(world.folder / "ct")
    with listener(world, **settings) as port:
        assert echoscu(port, called=called, calling=calling) != 0
        assert storescu(port, paths, called=called, calling=calling) != 0
    assert series_rows(world) == []


def send(port: int, dataset: Dataset, syntax: str) -> int | None:
    """C-STORE of one dataset as it is; None where the association was lost or the syntax refused."""
    entity = Entity("CT1")
    entity.add_requested_context(CTImageStorage, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="LUNGNODULE")
    try:
        if not association.accepted_contexts:
            return None
        status = association.send_c_store(dataset)
        return int(status.Status) if "Status" in status else None
    finally:
        if association.is_established:
            association.release()


def test_what_cannot_be_kept_is_answered_with_its_reason(world: PacsWorld) -> None:
    dataset = dcmread(write_series(world.folder / "ct")[0])
    syntax = dataset.file_meta.TransferSyntaxUID
    del dataset.SeriesInstanceUID
    with listener(world) as port:
        assert send(port, dataset, syntax) == FailureReason.CANNOT_UNDERSTAND
    assert series_rows(world) == []


def test_a_deflated_dataset_is_not_accepted(world: PacsWorld) -> None:
    dataset = dcmread(write_series(world.folder / "ct")[0])
    with listener(world) as port:
        assert send(port, dataset, DeflatedExplicitVRLittleEndian) is None


def test_an_instance_over_the_limit_ends_the_association_while_it_arrives(world: PacsWorld) -> None:
    def grow(dataset: Dataset, _z: int) -> None:
        dataset.add_new(0x00091001, "OB", bytes(1_000_000))

    dataset = dcmread(write_series(world.folder / "ct", edit=grow)[0])
    with listener(world) as port:
        assert send(port, dataset, dataset.file_meta.TransferSyntaxUID) is None
        assert echoscu(port, called="LUNGNODULE", calling="CT1") == 0
    assert series_rows(world) == []


def test_a_pdu_that_claims_four_gigabytes_is_not_waited_for(world: PacsWorld) -> None:
    with listener(world) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(1000))
        with suppress(ConnectionResetError):
            assert peer.recv(1) == b""  # closed, not waiting for the rest
        assert echoscu(port, called="LUNGNODULE", calling="CT1") == 0


def test_a_peer_that_aborts_and_resets_leaves_no_socket_to_the_collector(world: PacsWorld) -> None:
    with listener(world) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
            peer.sendall(struct.pack(">BBLL", 7, 0, 4, 0))  # A-ABORT
        assert echoscu(port, called="LUNGNODULE", calling="CT1") == 0


def test_a_port_that_is_taken_is_told(world: PacsWorld) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(ListenerUnavailable, match="in use"), listener(world, port=holder.getsockname()[1]):
            pass


def test_the_lua_script_of_the_guide_makes_an_orthanc_push(world: PacsWorld) -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/pacs.md").read_text(encoding="utf-8")
    script = world.folder / "push.lua"
    script.write_text(guide.partition("```lua\n")[2].partition("```")[0])
    (folder := world.folder / "orthanc").mkdir()
    with (
        listener(world, calling_ae_titles=["TESTPACS"]) as port,
        running_orthanc(
            folder,
            LuaScripts=[str(script)],
            DicomModalities={"LUNGNODULE": ["LUNGNODULE", "127.0.0.1", port]},
        ) as orthanc,
    ):
        assert storescu(orthanc.dicom_port, write_series(world.folder / "ct")) == 0
        until(
            lambda: [row for row in series_rows(world) if len(world.pacs.shelf.files(row["id"])) == 4], "it is pushed"
        )


_PIECES = [
    b"--b\r\nContent-Type: application/dicom\r\n\r\n", b"--b", b"--b--", b"\r\n", b"\r\n\r\n", bytes(128) + b"DICM",
    b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00", b"\x08\x00\x16\x00UI\x02\x001\x00", b"\xff\xff\xff\xff",
]  # fmt: skip


@pytest.fixture(scope="module")
def lasting_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_with(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@given(body=st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=12)), max_size=12).map(b"".join))
def test_any_body_is_answered(lasting_client: TestClient, body: bytes) -> None:
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    answer = lasting_client.post("/dicom-web/studies", content=body, headers=headers)
    assert answer.status_code in {200, 202, 400, 409, 413, 415, 422}
    if answer.status_code >= 400 and answer.status_code != 409:
        assert answer.headers["content-type"] == "application/problem+json"
    assert left_in(lasting_client.app.state.pacs.scratch.parent) == []  # type: ignore[attr-defined]
