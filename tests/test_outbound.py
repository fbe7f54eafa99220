"""Where connections to others may go, with real sockets: by name, by address, by redirect, by a DNS that changes."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from app.jobs.webhooks import Deliveries
from app.outbound import AddressRefused, GuardedConnection, connect, judged_addresses, refused_because
from app.pacs.config import DimseTarget, Poller, WebTarget
from app.pacs.dicomweb import WebDestination
from app.pacs.dimse import DimseDestination
from app.pacs.errors import PacsTroubleError
from app.pacs.web_session import WebSession, web_trouble_told
from app.settings import WebhookTarget
from tests.jobs.installations import ORDER, world

SECRET = SecretStr("a secret of some length")


@dataclass
class Site:
    """What was asked for, and where a redirect leads."""

    port: int = 0
    location: str = ""
    paths: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.paths.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(302 if made.location else 200)
            if made.location:
                self.send_header("Location", made.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("address", "private_refused", "private_allowed"),
    [
        ("93.184.216.34", None, None),
        ("2606:2800:220:1::1", None, None),
        ("127.0.0.1", "private", None),
        ("::1", "private", None),
        ("10.1.2.3", "private", None),
        ("172.16.0.1", "private", None),
        ("192.168.1.1", "private", None),
        ("100.64.0.1", "private", None),
        ("fd12:3456::1", "private", None),
        ("::ffff:127.0.0.1", "private", None),
        ("64:ff9b::7f00:1", "private", None),
        ("2002:7f00:1::", "private", None),
        ("169.254.169.254", "link_local", "link_local"),
        ("169.254.170.2", "link_local", "link_local"),
        ("::ffff:169.254.169.254", "link_local", "link_local"),
        ("64:ff9b::a9fe:a9fe", "link_local", "link_local"),
        ("2002:a9fe:a9fe::", "link_local", "link_local"),
        ("fe80::1%eth0", "link_local", "link_local"),
        ("fd00:ec2::254", "link_local", "link_local"),
        ("100.100.100.200", "link_local", "link_local"),
        ("0.0.0.0", "not_a_host", "not_a_host"),
        ("::", "not_a_host", "not_a_host"),
        ("224.0.0.1", "not_a_host", "not_a_host"),
        ("ff02::1", "not_a_host", "not_a_host"),
        ("255.255.255.255", "not_a_host", "not_a_host"),
        ("240.0.0.1", "not_a_host", "not_a_host"),
    ],
)
def test_every_kind_of_address_is_judged(
    address: str, private_refused: str | None, private_allowed: str | None
) -> None:
    assert refused_because(address, allow_private=False) == private_refused
    assert refused_because(address, allow_private=True) == private_allowed


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "0.0.0.0", "0"])
def test_no_way_of_writing_an_address_hides_it(host: str) -> None:
    with pytest.raises(AddressRefused):
        judged_addresses(host, 80, allow_private=True)


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "localhost", "127.0.0.1"])
def test_this_machine_is_reached_only_where_the_configuration_allows_it(site: Site, host: str) -> None:
    with pytest.raises(AddressRefused):
        connect(host, site.port, 5, allow_private=False)
    with connect(host, site.port, 5, allow_private=True) as made:
        assert made.getpeername()[1] == site.port


def test_a_name_that_changes_in_between_leads_nowhere_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: the second answer of the DNS is this machine; it is never asked for."""
    answers = ["203.0.113.9", "127.0.0.1"]
    asked: list[str] = []

    def resolved(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answer = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]

    reached: list[str] = []

    def noted(_socket: socket.socket, address: tuple[str, int]) -> None:
        reached.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket.socket, "connect", noted)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the machine says of an address that leads nowhere
        connect("rebinding.example", site.port, 1, allow_private=True)
    assert (asked, reached) == (["rebinding.example"], ["203.0.113.9"])
    assert site.paths == []


def test_of_several_addresses_the_refused_ones_are_left_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, site.port))
        for address in ("169.254.169.254", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with connect("mixed.example", site.port, 5, allow_private=True) as made:
        assert made.getpeername()[0] == "127.0.0.1"


def test_tls_is_agreed_on_by_the_name(site: Site) -> None:
    import ssl  # noqa: PLC0415

    connection = GuardedConnection("localhost", site.port, 5, allow_private=True, context=ssl.create_default_context())
    with pytest.raises((ssl.SSLError, OSError)):
        connection.request("GET", "/")
    connection.close()
    plain = GuardedConnection("localhost", site.port, 5, allow_private=True, context=None)
    plain.request("GET", "/path")
    assert plain.getresponse().status == http.client.OK
    plain.close()


@pytest.mark.parametrize(
    ("host", "allow_private", "answer"),
    [
        ("127.0.0.1", True, "200"),
        ("127.0.0.1", False, "address_refused"),
        ("localhost", False, "address_refused"),
        ("169.254.169.254", True, "address_refused"),
    ],
)
def test_a_webhook_goes_where_the_configuration_lets_it(
    tmp_path: Path, site: Site, host: str, answer: str, *, allow_private: bool
) -> None:
    target = WebhookTarget(url=f"http://{host}:{site.port}/hook", secret=SECRET, allow_private=allow_private)
    assert _delivered(tmp_path, target) == answer
    assert site.paths == (["/hook"] if answer == "200" else [])


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/inside", "http://169.254.169.254/", "file:///etc/passwd"]
)
def test_a_webhook_follows_no_redirect(tmp_path: Path, site: Site, location: str) -> None:
    site.location = location.replace("{port}", str(site.port))
    target = WebhookTarget(url=f"{site.url}/hook", secret=SECRET, allow_private=True)
    assert _delivered(tmp_path, target) == "302"
    assert site.paths == ["/hook"]


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/inside", "http://169.254.169.254/", "file:///etc/passwd"]
)
def test_a_pacs_client_follows_no_redirect(site: Site, location: str) -> None:
    site.location = location.replace("{port}", str(site.port))
    with pytest.raises(PacsTroubleError) as trouble:
        WebDestination(WebTarget(kind="dicomweb", url=f"{site.url}/dicom-web")).check()
    assert trouble.value.code == "pacs_redirects"
    assert len(site.paths) == 1


@pytest.mark.parametrize(
    ("host", "allow_private"),
    [("127.0.0.1", False), ("localhost", False), ("169.254.169.254", True), ("0.0.0.0", True)],
)
def test_a_pacs_at_a_refused_address_is_not_asked(site: Site, host: str, *, allow_private: bool) -> None:
    web = WebTarget(kind="dicomweb", url=f"http://{host}:{site.port}/dicom-web", allow_private=allow_private)
    dimse = DimseTarget(kind="dimse", ae_title="X", host=host, port=site.port, allow_private=allow_private)
    for destination in (WebDestination(web), DimseDestination(dimse)):
        with pytest.raises(PacsTroubleError) as trouble:
            destination.check()
        assert trouble.value.code == "pacs_unreachable"
    assert site.paths == []


def test_a_pacs_session_speaks_http_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "inside").write_text("secret")
    for url in (f"file://{tmp_path}/inside", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"):
        with (
            WebSession(None, 5, 1000, allow_private=True) as session,
            pytest.raises(PacsTroubleError),
            web_trouble_told(),
        ):
            session.get(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/", "gopher://x/", "http://user:pass@x/", "//x/", "x"])
def test_configurations_name_http_addresses_only(url: str) -> None:
    for model in (WebTarget, Poller):
        fields = {"kind": "dicomweb", "url": url} if model is WebTarget else {"url": url}
        with pytest.raises(ValidationError):
            TypeAdapter(model).validate_python(fields)
    if "@" not in url:
        with pytest.raises(ValidationError):
            WebhookTarget(url=url, secret=SECRET)


def _delivered(folder: Path, target: WebhookTarget) -> str:
    """What is noted of one message to this target."""
    import sqlalchemy as sa  # noqa: PLC0415

    from app.jobs.tables import outbox  # noqa: PLC0415

    with world(folder, webhooks={"hook": target}) as made:
        from dataclasses import replace  # noqa: PLC0415

        made.submit(order=replace(ORDER, notify="hook"))
        made.work()
        Deliveries(made.jobs.database, {"hook": target}).send_due()
        with made.jobs.database.reading() as connection:
            return str(connection.execute(sa.select(outbox.c.last_answer)).scalar_one())
