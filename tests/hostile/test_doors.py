"""Documents that come from others than clients: a worklist's answers and events, a router's task."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from app.cli import command_line
from app.imaging.errors import LungNoduleError
from app.pacs.cancel_requests import CancelRequests
from app.pacs.config import Worklist
from app.pacs.errors import PacsTroubleError
from app.pacs.ups_client import UpsClient
from app.pacs.workitem_input import references
from app.pacs.worklist import Performer
from tests.hostile.worlds import CANARY
from tests.pacs.event_server import event_server

DEEP = "[" * 100_000 + "]" * 100_000


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def nested(depth: int) -> str:
    """A workitem of sequences in sequences."""
    return "[" + '{"00404021": {"vr": "SQ", "Value": [' * depth + "{}" + "]}}" * depth + "]"


LIES: dict[str, str] = {
    "large": json.dumps([{"00100010": element("PN", {"Alphabetic": CANARY * (4 << 20)})}]),
    "deep": DEEP,
    "nested": nested(5000),
    "nested_a_little": nested(200),
    "no_json": "<html>" + CANARY,
    "no_list": '"' + CANARY + '"',
    "list_of_names": json.dumps([CANARY] * 3),
    "wrong_tags": json.dumps([{CANARY: element("UI", "1.2")}]),
    "wrong_vr": json.dumps([{"00080018": element("ZZ", "1.2")}]),
    "uid_of_lists": json.dumps([{"00080018": element("UI", [CANARY], {"a": 1})}]),
    "uid_that_is_a_path": json.dumps([{"00080018": element("UI", f"../../{CANARY}")}]),
    "value_that_is_none": json.dumps([{"00080018": {"vr": "UI", "Value": None}}]),
    "element_that_is_none": json.dumps([{"00080018": None}]),
    "codes_that_are_words": json.dumps([{"00080018": element("UI", "1.2.3"), "00404025": element("LO", CANARY)}]),
    "input_that_is_words": json.dumps([{"00080018": element("UI", "1.2.3"), "00404021": element("LO", CANARY)}]),
    "input_of_words": json.dumps([{"00404021": element("SQ", {"00081199": element("LO", CANARY)})}]),
    "no_number": '[{"00741004": {"vr": "DS", "Value": [NaN, Infinity, 1e999]}}]',
}


@pytest.fixture
def serve() -> Iterator[Callable[[str], Worklist]]:
    """A server whose every answer is the given text."""
    told: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(told[-1])))
            self.end_headers()
            self.wfile.write(told[-1])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def answering(text: str) -> Worklist:
            told.append(text.encode())
            return Worklist(
                url=f"http://127.0.0.1:{server.server_port}", station="AI1", workitem_code="C", input="a", output="a"
            )

        yield answering
        server.shutdown()
        thread.join()


def ends_well(work: Callable[[], Any]) -> Any:
    """What comes of it; refusals are told in our own words, which do not repeat theirs."""
    try:
        return work()
    except (PacsTroubleError, LungNoduleError) as refusal:
        told = f"{refusal} {refusal.values} {refusal.__context__!r}"
    assert CANARY not in told
    return None


@pytest.mark.parametrize("lie", LIES)
def test_a_worklist_that_lies(serve: Callable[[str], Worklist], lie: str) -> None:
    client = UpsClient(serve(LIES[lie]))
    assert not ends_well(client.scheduled)
    workitem = ends_well(lambda: client.workitem("1.2.3"))
    if workitem is not None:
        assert not ends_well(lambda: references(workitem))


def event(kind: Any, uid: Any) -> str:
    return json.dumps({"00001002": element("US", kind), "00001000": element("UI", uid)})


EVENTS = (
    DEEP, nested(5000), CANARY, "null", "[]", '[["' + CANARY + '"]]', event(2, [CANARY]), event({"a": 1}, CANARY),
    event("2", CANARY), '{"00001002": {"vr": "US", "Value": {"0": 2}}}', '{"00001002": 2}', "NaN", "9" * 5000,
)  # fmt: skip


def test_events_that_lie() -> None:
    """Whatever comes over the channel, nothing is cancelled, and the next good event is heard."""
    cancelled: list[str] = []
    with event_server() as events:
        settings = Worklist(url="http://127.0.0.1:9", events_url=events.url, input="a", output="a")
        performer = SimpleNamespace(client=UpsClient(settings), name="main", cancel=cancelled.append)
        with closing(CancelRequests(cast("Performer", performer))) as listening:
            ends_well(listening.round)
            for lie in EVENTS:
                events.frame(1, lie.encode())
                ends_well(listening.round)
            assert cancelled == []
            events.tell("1.2.3", 2)
            for _ in range(3):
                ends_well(listening.round)
            assert cancelled == ["1.2.3"]


TASKS = {
    "deep": '{"process": ' + DEEP + "}",
    "deep settings": '{"process": {"settings": {"model": ' + DEEP + "}}}",
    "no json": CANARY,
    "list": "[1, 2]",
    "word": json.dumps({"process": CANARY}),
    "list of words": json.dumps({"process": [CANARY]}),
    "settings of words": json.dumps({"process": {"settings": CANARY}}),
    "path for a model": json.dumps({"process": {"settings": {"model": f"../../{CANARY}"}}}),
    "wrong types": json.dumps({"process": {"settings": {"model": [CANARY], "kinds": {"a": 1}, "notify": 5}}}),
    "many kinds": json.dumps({"process": {"settings": {"kinds": ["sr", CANARY] * 100_000}}}),
    "not utf-8": "\udcff",
}


@pytest.mark.parametrize("lie", TASKS)
def test_a_task_that_lies(tmp_path: Path, lie: str, monkeypatch: pytest.MonkeyPatch, tiny_model_store: Path) -> None:
    """One line, the exit code of a wrong use or of a model that is not there; nothing is written."""
    monkeypatch.setenv("LUNGNODULE_MODEL_STORE", str(tiny_model_store))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/task.json").write_bytes(TASKS[lie].encode("utf-8", "surrogateescape"))
    (tmp_path / "in/a.dcm").write_bytes(b"")
    asked = ["mercure", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(command_line(), asked)
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code in (2, 3, 4), done.output
    assert len(done.output.splitlines()) == 1
    assert len(done.output) < 5000
    assert not (tmp_path / "out").exists()
