"""Reading Orthanc's log: whatever it says, and however often either side goes away, every stable series comes once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from app.jobs.tables import pacs_cursors, pacs_fetches
from app.pacs.config import Poller
from app.pacs.errors import PacsTroubleError
from app.pacs.orthanc import OrthancPoller
from tests.pacs.pacs_worlds import PacsWorld, capture, config, pacs_world, write_series


def remote_id(number: int) -> str:
    return "-".join([f"{number:08x}"] * 5)


@dataclass
class Log:
    """An Orthanc that has only a log, series and files."""

    url: str = ""
    changes: list[tuple[str, str]] = field(default_factory=list)
    series: dict[str, list[Path]] = field(default_factory=dict)
    status: int = 200
    asked: list[str] = field(default_factory=list)

    def stable(self, number: int, paths: list[Path]) -> None:
        self.series[remote_id(number)] = paths
        self.changes.append(("StableSeries", remote_id(number)))

    def answer(self, path: str) -> bytes | None:
        parts = urlsplit(path)
        if parts.path == "/changes":
            return json.dumps(self.page({key: value[0] for key, value in parse_qs(parts.query).items()}, path)).encode()
        kind, _, rest = parts.path.strip("/").partition("/")
        if kind == "series" and rest in self.series:
            ids = [f"{rest[:8]}-{index:08x}-00000000-00000000-00000000" for index in range(len(self.series[rest]))]
            return json.dumps({"Instances": ids, "MainDicomTags": {"Modality": "CT"}}).encode()
        if kind == "instances":
            series, index = rest.split("-")[:2]
            return self.series["-".join([series] * 5)][int(index, 16)].read_bytes()
        return None

    def page(self, asked: dict[str, str], path: str) -> dict[str, Any]:
        numbered = [
            {"ChangeType": kind, "ID": remote, "Seq": number, "ResourceType": "Series"}
            for number, (kind, remote) in enumerate(self.changes, start=1)
        ]
        since, limit = int(asked.get("since", 0)), min(2, int(asked.get("limit", 100)))  # small pages
        shown = numbered[-1:] if path.endswith("last") else [one for one in numbered if one["Seq"] > since][:limit]
        last = shown[-1]["Seq"] if shown else len(numbered)
        return {"Changes": shown, "Last": last, "Done": last == len(numbered)}


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            answer = made.answer(self.path)
            self.send_response(made.status if answer is not None else 404)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def world(tmp_path: Path, database_url: str | None) -> Iterator[PacsWorld]:
    with pacs_world(tmp_path, database_url, config(receive={"max_instance_bytes": 50_000})) as made:
        yield made


def poller(world: PacsWorld, log: Log, begin: str = "oldest", **changes: Any) -> OrthancPoller:
    settings = Poller.model_validate({"url": log.url, "begin": begin, "timeout_s": 20, **changes})
    return OrthancPoller("main", settings, world.here.jobs.database, world.pacs.shelf, world.pacs.scratch)


def answers(world: PacsWorld) -> list[str | None]:
    with world.here.jobs.database.reading() as connection:
        query = sa.select(pacs_fetches.c.last_answer).order_by(pacs_fetches.c.seq)
        return list(connection.execute(query).scalars())


def make_due(world: PacsWorld) -> None:
    with world.here.jobs.database.transaction() as connection:
        connection.execute(sa.update(pacs_fetches).where(pacs_fetches.c.next_at.is_not(None)).values(next_at=0.0))


def test_every_stable_series_of_a_log_of_many_pages_is_fetched(world: PacsWorld, log: Log) -> None:
    for number in range(1, 6):
        log.changes += [("NewSeries", remote_id(number)), ("StablePatient", remote_id(number + 100))]
        log.stable(number, write_series(world.folder / str(number), number=number))
    assert poller(world, log).round() == 5
    assert world.pacs.handover.hand_over_due() == 5  # complete: nothing is waited for
    assert poller(world, log).round() == 0
    assert list(world.pacs.scratch.iterdir()) == []


def test_what_was_there_before_is_left_unless_asked_for(world: PacsWorld, log: Log) -> None:
    log.stable(1, write_series(world.folder / "1"))
    ours = poller(world, log, begin="now")
    assert ours.round() == 0
    log.stable(2, write_series(world.folder / "2", number=2))
    assert ours.round() == 1


def test_a_series_that_cannot_be_had_now_is_had_later_and_holds_up_no_other(world: PacsWorld, log: Log) -> None:
    paths = write_series(world.folder / "1")
    log.stable(1, [*paths[:3], world.folder / "1/away.dcm"])
    (world.folder / "1/away.dcm").write_bytes(b"not yet a file")
    log.stable(2, write_series(world.folder / "2", number=2))
    ours = poller(world, log)
    assert ours.round() == 1
    assert answers(world) == ["not_dicom", "fetched"]
    log.series[remote_id(1)] = paths
    log.changes.append(("StableSeries", remote_id(1)))
    assert ours.round() == 1


def test_an_orthanc_that_is_away_loses_nothing(world: PacsWorld, log: Log) -> None:
    ours = poller(world, log)
    ours.round()
    log.stable(1, write_series(world.folder / "1"))
    ours.read_log()
    log.status = 503
    with pytest.raises(PacsTroubleError):
        ours.round()
    log.status = 200
    assert ours.round() == 1


def test_a_fetch_that_was_cut_off_is_made_again(world: PacsWorld, log: Log) -> None:
    log.stable(1, write_series(world.folder / "1"))
    ours = poller(world, log)
    ours.read_log()
    assert ours._claim() is not None
    assert ours.round() == 0  # it is in somebody's hands
    make_due(world)  # who was killed
    assert ours.round() == 1


def test_two_processes_fetch_a_series_once(world: PacsWorld, log: Log) -> None:
    log.stable(1, write_series(world.folder / "1"))
    one, two = poller(world, log), poller(world, log)
    one.read_log()
    two.read_log()
    assert (one.round(), two.round()) == (1, 0)


def test_a_log_that_begins_anew_is_read_from_its_beginning(world: PacsWorld, log: Log) -> None:
    for number in range(1, 4):
        log.stable(number, write_series(world.folder / str(number), number=number))
    ours = poller(world, log)
    assert ours.round() == 3
    log.changes.clear()
    log.stable(7, write_series(world.folder / "7", number=7))
    assert ours.round() == 1
    with world.here.jobs.database.reading() as connection:
        assert connection.execute(sa.select(pacs_cursors.c.seq)).scalar_one() == 1


def test_what_no_rule_asks_for_is_not_fetched_whole(world: PacsWorld, log: Log) -> None:
    log.stable(1, write_series(world.folder / "1", body_part_examined="HEAD"))
    assert poller(world, log).round() == 0
    assert answers(world) == ["not_wanted"]
    assert sum(path.endswith("/file") for path in log.asked) == 1


@pytest.mark.parametrize(
    ("changes", "grow", "answer"),
    [({"max_instances": 3}, 0, "too_many_instances"), ({}, 60_000, "answer_too_large")],
)
def test_what_is_over_a_limit_is_given_up_at_once(
    world: PacsWorld, log: Log, changes: dict[str, Any], grow: int, answer: str
) -> None:
    paths = write_series(world.folder / "1")
    paths[1].write_bytes(paths[1].read_bytes() + bytes(grow))
    log.stable(1, paths)
    assert poller(world, log, **changes).round() == 0
    make_due(world)
    assert poller(world, log, **changes).round() == 0
    assert answers(world) == [answer]
    assert list(world.pacs.scratch.iterdir()) == []


def test_our_own_results_are_not_taken_for_scans(world: PacsWorld, log: Log) -> None:
    path = world.folder / "sc.dcm"
    made = capture("job", "sc", "1.2.3")
    made.Modality = "CT"  # even if it said so
    made.save_as(path, enforce_file_format=True)
    log.stable(1, [path])
    assert poller(world, log).round() == 0
    assert answers(world) == ["sop_class_not_supported"]


@pytest.mark.parametrize("answer", [b"[]", b"x", b"{}", b'{"Changes": [{"Seq": "1"}], "Last": 1}', b'{"Last": null}'])
def test_an_answer_that_makes_no_sense_moves_nothing(
    world: PacsWorld, log: Log, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = poller(world, log)
    ours.round()
    monkeypatch.setattr(log, "answer", lambda _path: answer)
    with pytest.raises(PacsTroubleError):
        ours.round()
    with world.here.jobs.database.reading() as connection:
        assert connection.execute(sa.select(pacs_cursors.c.seq)).scalar_one() == 0
