"""Who asked to be told is told: signed, again until it is heard, and nobody else."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr, ValidationError

from app.jobs.tables import outbox
from app.jobs.webhooks import ID_HEADER, MAX_TRIES, SIGNATURE_HEADER, Deliveries
from app.settings import Settings, WebhookTarget
from tests.jobs.installations import ORDER, World, world

SECRET = "a secret of some length"


@dataclass
class Receiver:
    """Answers with the statuses it was given, the last one for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(made.statuses.pop(0) if len(made.statuses) > 1 else made.statuses[0])
            self.send_header("Location", made.url)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/hook?site=1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def here(tmp_path: Path, database_url: str | None) -> Iterator[World]:
    with world(tmp_path, database_url) as made:
        yield made


def deliveries(here: World, url: str) -> Deliveries:
    return Deliveries(
        here.jobs.database, {"pacs": WebhookTarget(url=url, secret=SecretStr(SECRET), allow_private=True)}
    )


def make_due(here: World) -> None:
    with here.jobs.database.transaction() as connection:
        connection.execute(sa.update(outbox).where(outbox.c.next_at.is_not(None)).values(next_at=0.0))


def test_the_end_of_a_job_is_told_once_and_signed(here: World, receiver: Receiver) -> None:
    job_id = here.submit(order=replace(ORDER, notify="pacs"))
    here.submit(b"nobody asked")
    here.work()
    sender = deliveries(here, receiver.url)
    assert sender.send_due() == 1
    assert sender.send_due() == 0
    ((headers, body),) = receiver.got
    at, _, signed = headers[SIGNATURE_HEADER].removeprefix("t=").partition(",v1=")
    assert signed == hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    told = json.loads(body)
    assert told["job"] == {"id": job_id, "state": "succeeded", "path": f"/v1/jobs/{job_id}"}
    assert told["id"] == headers[ID_HEADER]
    assert told["disclaimer"].startswith("Research use only")


def test_who_does_not_hear_is_told_again_with_the_same_id(here: World, receiver: Receiver) -> None:
    receiver.statuses = [503, 302, 200]
    job_id = here.submit(order=replace(ORDER, notify="pacs"))
    here.work()
    sender = deliveries(here, receiver.url)
    pauses = []
    for _ in range(2):
        assert sender.send_due() == 0
        (row,) = here.rows(outbox, job_id)
        pauses.append(row["next_at"])
        assert sender.send_due() == 0  # not yet
        make_due(here)
    assert sender.send_due() == 1
    assert len({headers[ID_HEADER] for headers, _ in receiver.got}) == 1
    assert len(receiver.got) == 3
    (row,) = here.rows(outbox, job_id)
    assert (row["tries"], row["last_answer"], row["next_at"]) == (3, "200", None)
    assert pauses[1] > pauses[0]


def test_nobody_there_and_giving_up(here: World) -> None:
    job_id = here.submit(order=replace(ORDER, notify="pacs"))
    here.work()
    sender = deliveries(here, "http://127.0.0.1:9/")
    for _ in range(MAX_TRIES):
        make_due(here)
        sender.send_due()
    (row,) = here.rows(outbox, job_id)
    assert (row["tries"], row["last_answer"], row["next_at"]) == (MAX_TRIES, "ConnectionRefusedError", None)
    make_due(here)
    assert sender.send_due() == 0


def test_a_message_in_hand_is_not_sent_by_another_worker(here: World, receiver: Receiver) -> None:
    here.submit(order=replace(ORDER, notify="pacs"))
    here.work()
    sender = deliveries(here, receiver.url)
    assert sender._claim() is not None
    assert sender.send_due() == 0
    make_due(here)  # as if the one who had it in hand was killed
    assert sender.send_due() == 1


@pytest.mark.parametrize(
    "target",
    [
        {"url": "ftp://x/", "secret": SECRET},
        {"url": "http://", "secret": SECRET},
        {"url": "http://x/", "secret": "short"},
        {"url": "http://x/", "secret": SECRET, "headers": {}},
    ],
)
def test_a_target_that_does_not_fit_is_refused(target: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(webhooks={"pacs": target})


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(Settings(webhooks={"pacs": {"url": "http://x/", "secret": SECRET}}))
