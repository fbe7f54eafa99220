"""What a PACS answers is checked, and a result is sent until it is confirmed: row 48 of the hostile inputs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.jobs.rows import Who
from app.jobs.tables import pacs_returns
from app.pacs.claims import CLAIM_S
from app.pacs.config import WebTarget
from app.pacs.dicomweb import WebDestination
from app.pacs.errors import PacsTroubleError
from app.pacs.returns import MAX_TRIES, Returns, ask_for_return
from app.pacs.web_session import AnswerTooLarge, WebSession
from tests.jobs.installations import World, world
from tests.pacs.orthanc import until
from tests.pacs.pacs_worlds import capture, objects_of

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Archive:
    """Answers what it is told to; keeps what it was sent."""

    url: str = ""
    answer: Callable[[str, bytes], Answer] = lambda _path, _body: (200, {}, b"")
    got: list[tuple[str, bytes]] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    """Whose captures it knows."""


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            made.got.append((self.path, body))
            status, headers, answer = made.answer(self.path, body)
            self.send_response(status)
            for name, value in {"Content-Type": "application/dicom+json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


ONE = capture("job", "sc", "1.2.3")


def told(stored: list[str], failed: list[str]) -> bytes:
    """A STOW-RS answer."""

    def items(uids: list[str], **more: Any) -> dict[str, Any]:
        return {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}, **more} for uid in uids]}

    reason = {"00081197": {"vr": "US", "Value": [0xA700]}}
    found = {"00081199": items(stored)} if stored else {}
    return json.dumps(found | ({"00081198": items(failed, **reason)} if failed else {})).encode()


UID = str(ONE.SOPInstanceUID)
ANSWERS: dict[str, tuple[Answer, str]] = {
    "all is stored": ((200, {}, told([UID], [])), "stored"),
    "200 with nothing in it": ((200, {}, b"{}"), "not_confirmed"),
    "200 about another instance": ((200, {}, told(["1.2.3.4"], [])), "not_confirmed"),
    "202, and it is among those that failed": ((202, {}, told([], [UID])), "refused_A700"),
    "stored and failed at once": ((202, {}, told([UID], [UID])), "refused_A700"),
    "409": ((409, {}, told([], [UID])), "refused_409"),
}
TROUBLE: dict[str, tuple[Answer, str]] = {
    "401": ((401, {}, b""), "pacs_denies_access"),
    "302": ((302, {"Location": "http://127.0.0.1:1/"}, b""), "pacs_redirects"),
    "307": ((307, {"Location": "http://169.254.169.254/latest"}, b""), "pacs_redirects"),
    "503": ((503, {}, b""), "pacs_http_503"),
    "404": ((404, {}, b""), "pacs_http_404"),
}


def destination(archive: Archive, **changes: Any) -> WebDestination:
    return WebDestination(
        WebTarget.model_validate({"kind": "dicomweb", "url": archive.url, "timeout_s": 10, **changes})
    )


@pytest.mark.parametrize("case", ANSWERS)
def test_only_what_is_said_to_be_stored_is_stored(archive: Archive, case: str) -> None:
    answer, expected = ANSWERS[case]
    archive.answer = lambda _path, _body: answer
    assert destination(archive).send([ONE]) == {UID: expected}
    assert archive.got[0][0] == "/dicom-web/studies"
    assert b"DICM" in archive.got[0][1]


@pytest.mark.parametrize("case", TROUBLE)
def test_what_is_no_answer_is_trouble(archive: Archive, case: str) -> None:
    answer, code = TROUBLE[case]
    archive.answer = lambda _path, _body: answer
    with pytest.raises(PacsTroubleError) as raised:
        destination(archive).send([ONE])
    assert raised.value.code == code
    assert len(archive.got) == 1  # nothing was followed, nothing tried again at once


def test_one_object_that_is_refused_holds_up_no_other(archive: Archive) -> None:
    two = capture("job", "sr", "1.2.3")
    archive.answer = lambda _path, body: (
        (409, {}, b"{}") if UID.encode() in body else (200, {}, told([str(two.SOPInstanceUID)], []))
    )
    assert destination(archive).send([ONE, two]) == {UID: "refused_409", str(two.SOPInstanceUID): "stored"}


def test_an_answer_over_the_limit_is_not_taken_in(archive: Archive, tmp_path: Path) -> None:
    archive.answer = lambda _path, _body: (200, {}, bytes(100_000))
    with pytest.raises(AnswerTooLarge):
        destination(archive, max_answer_bytes=50_000).check()
    with WebSession(None, 10, 1000, allow_private=True) as session:
        with pytest.raises(AnswerTooLarge):
            session.download(f"{archive.url}/file", tmp_path / "file", 50_000)
        assert session.download(f"{archive.url}/file", tmp_path / "file", 100_000) == 200
    assert (tmp_path / "file").stat().st_size == 100_000


def test_a_small_answer_that_unpacks_to_a_large_one_is_not_taken_in(archive: Archive) -> None:
    import gzip  # noqa: PLC0415

    archive.answer = lambda _path, _body: (200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(10 << 20)))
    with pytest.raises(AnswerTooLarge):
        destination(archive, max_answer_bytes=1 << 20).check()


@pytest.fixture
def here(tmp_path: Path, database_url: str | None) -> Iterator[World]:
    with world(tmp_path, database_url) as made:
        yield made


def returns_of(here: World, archive: Archive, *names: str) -> Returns:
    targets = {name: destination(archive) for name in names or ("archive",)}
    return Returns(here.jobs.database, targets, objects_of({}))


def ask(here: World, job_id: str, *targets: str) -> None:
    with here.jobs.database.transaction() as connection:
        for target in targets:
            ask_for_return(connection, job_id, target, ["sc", "sr"], here.jobs.database.now(connection))


def make_due(here: World) -> None:
    with here.jobs.database.transaction() as connection:
        connection.execute(sa.update(pacs_returns).where(pacs_returns.c.next_at.is_not(None)).values(next_at=0.0))


def stores(archive: Archive, *, but: bytes = b"\0never") -> None:
    """It stores what comes, but for what has these bytes."""

    def answer(_path: str, body: bytes) -> Answer:
        uids = [str(capture(job, kind, "1.2.3").SOPInstanceUID) for job in archive.jobs for kind in ("sc", "sr")]
        uid = next(uid for uid in uids if uid.encode() in body)
        return (409, {}, b"{}") if but in body else (200, {}, told([uid], []))

    archive.answer = answer


def test_results_are_sent_once_the_job_has_succeeded(here: World, archive: Archive) -> None:
    stores(archive)
    job_id = here.submit()
    archive.jobs.append(job_id)
    ask(here, job_id, "archive")
    ask(here, job_id, "archive")
    returns = returns_of(here, archive)
    assert returns.send_due("archive") == 0
    assert returns.waiting() == {"archive": 1}
    here.work()
    assert returns.send_due("archive") == 1
    assert returns.send_due("archive") == 0
    assert len(archive.got) == 2
    (told_of,) = returns.of_job(job_id)
    assert (told_of.state, told_of.objects_confirmed, told_of.last_answer) == ("sent", 2, "stored")
    assert returns.waiting() == {"archive": 0}


def test_what_was_confirmed_is_not_sent_again(here: World, archive: Archive) -> None:
    job_id = here.submit()
    stores(archive, but=str(capture(job_id, "sr", "1.2.3").SOPInstanceUID).encode())
    archive.jobs.append(job_id)
    ask(here, job_id, "archive")
    here.work()
    returns = returns_of(here, archive)
    assert returns.send_due("archive") == 0
    (told_of,) = returns.of_job(job_id)
    assert (told_of.state, told_of.objects_confirmed, told_of.last_answer) == ("waiting", 1, "refused_409")
    stores(archive)
    archive.jobs.append(job_id)
    make_due(here)
    assert returns.send_due("archive") == 1
    assert len(archive.got) == 3


def test_one_that_is_away_is_tried_again_until_there_is_no_hope(here: World, archive: Archive) -> None:
    archive.answer = lambda _path, _body: (503, {}, b"")
    first, second = here.submit(), here.submit(b"another")
    for job_id in (first, second):
        ask(here, job_id, "archive")
    here.work()
    returns = returns_of(here, archive)
    returns.send_due("archive")
    assert len(archive.got) == 1  # the second would get no answer either
    with here.jobs.database.transaction() as connection:
        connection.execute(sa.update(pacs_returns).values(tries=MAX_TRIES - 1))
    for _ in range(2):
        make_due(here)
        returns.send_due("archive")
    assert {each.state for job_id in (first, second) for each in returns.of_job(job_id)} == {"given_up"}


def test_of_a_job_without_a_result_nothing_is_sent(here: World, archive: Archive) -> None:
    job_id = here.submit()
    ask(here, job_id, "archive")
    here.jobs.ledger.cancel(job_id, Who("anna"))
    returns = returns_of(here, archive)
    assert returns.send_due("archive") == 0
    assert [each.state for each in returns.of_job(job_id)] == ["void"]
    assert archive.got == []


def test_each_target_has_a_line_of_its_own(here: World, archive: Archive) -> None:
    stores(archive)
    job_id = here.submit()
    archive.jobs.append(job_id)
    ask(here, job_id, "away", "archive")
    here.work()
    returns = returns_of(here, archive, "archive")  # "away" has left the configuration
    assert returns.send_due("archive") == 1


def test_two_processes_do_not_send_the_same_at_once(here: World, archive: Archive) -> None:
    job_id = here.submit()
    ask(here, job_id, "archive")
    here.work()
    returns = returns_of(here, archive)
    assert returns._claim("archive") is not None
    assert returns.send_due("archive") == 0
    make_due(here)  # as if the one that had it was killed
    stores(archive)
    archive.jobs.append(job_id)
    assert returns.send_due("archive") == 1


def test_an_erased_job_leaves_nothing_to_send(here: World, archive: Archive) -> None:
    job_id = here.submit()
    ask(here, job_id, "archive")
    here.work()
    receipt = here.jobs.eraser.erase(job_id, Who("anna"), "request")
    assert receipt.rows_left == 0
    assert here.rows(pacs_returns, job_id) == []


def test_objects_that_cannot_be_made_only_delay_and_tell_nothing(
    here: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_job_id: str, _kinds: Any) -> Any:
        raise ValueError("Doe^John")

    job_id = here.submit()
    ask(here, job_id, "archive")
    here.work()
    returns = Returns(here.jobs.database, {"archive": destination(Archive("http://127.0.0.1:9"))}, fail)
    assert returns.send_due("archive") == 0
    assert [(each.state, each.last_answer) for each in returns.of_job(job_id)] == [("waiting", "internal_error")]
    assert "Doe^John" not in capsys.readouterr().out


def test_who_sends_keeps_its_claim_and_who_is_killed_loses_it_soon(here: World, archive: Archive) -> None:
    stores(archive)
    job_id = here.submit()
    archive.jobs.append(job_id)
    ask(here, job_id, "archive")
    here.work()
    stored = archive.answer
    seen: list[float] = []

    def claimed_until() -> float:
        with here.jobs.database.reading() as connection:
            return float(connection.execute(sa.select(pacs_returns.c.next_at)).scalar_one())

    def slowly(path: str, body: bytes) -> Answer:
        if not seen:
            with here.jobs.database.reading() as connection:
                left_s = claimed_until() - here.jobs.database.now(connection)
            assert 0 < left_s <= CLAIM_S < 30  # nobody need wait longer for one that was killed here
            seen.append(claimed_until())
            seen.append(until(lambda: max(claimed_until() - seen[0], 0.0), "the claim is renewed", patience_s=30))
        return stored(path, body)

    archive.answer = slowly
    assert returns_of(here, archive).send_due("archive") == 1
    assert len(seen) == 2
