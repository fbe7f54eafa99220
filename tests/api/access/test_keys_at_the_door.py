"""Who may come in: with a key, in a header, and nothing of it is kept or told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.api.problems import MEDIA_TYPE, Problem
from app.settings import Settings
from tests.api.access.callers import OPERATOR, SCAN, Door, door
from tests.api.standins import Serve, left_in


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("settings", "required"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "127.8.0.1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "10.1.2.3"}, True),
        ({"host": "ct.example"}, True),
        ({"access": "required"}, True),
        ({"host": "0.0.0.0", "access": "off"}, False),
    ],
)
def test_access_is_off_on_loopback_and_required_elsewhere(settings: dict[str, str], *, required: bool) -> None:
    assert Settings.model_validate(settings).access_required is required


def test_the_start_says_in_one_line_who_may_call(tmp_path: Path, serve: Serve) -> None:
    with capture_logs() as lines:
        serve(data_dir=tmp_path / "a")
        serve(data_dir=tmp_path / "b", host="0.0.0.0", access="off")
        serve(data_dir=tmp_path / "c", host="0.0.0.0")
    said = [(line["log_level"], line["access"]) for line in lines if "access" in line]
    assert said == [("info", "off"), ("warning", "off"), ("warning", "required")]
    assert any("WHOEVER REACHES" in line["event"] for line in lines)
    assert any("lungnodule keys create" in line["event"] for line in lines)


def test_without_access_nobody_is_asked(serve: Serve) -> None:
    client = serve(access="off", host="0.0.0.0")
    assert client.get("/v1/jobs").status_code == 200
    assert client.get("/v1/jobs", headers={"Authorization": "Bearer nonsense"}).status_code == 200
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("scheme", ["Authorization", "X-API-Key"])
def test_a_key_opens_in_either_header(here: Door, scheme: str) -> None:
    key = here.key("anna")["Authorization"].removeprefix("Bearer ")
    headers = {"Authorization": f"bearer {key}"} if scheme == "Authorization" else {scheme: key}
    assert here.client.get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic YW5uYTpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": f"Bearer ln_{'0' * 12}_{'0' * 64}"},
        {"X-API-Key": "x" * 5000},
        {"X-API-Key": "ln_\xe4"},
        {"Cookie": "lungnodule_session=invented"},
    ],
)
def test_nobody_else_comes_in(here: Door, headers: dict[str, str]) -> None:
    here.key("anna")
    answer = here.client.get("/v1/jobs", headers={name: value.encode("latin-1") for name, value in headers.items()})  # type: ignore[misc]
    assert answer.status_code == 401
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.headers["www-authenticate"].startswith('Bearer realm="lungnodule"')
    problem = Problem.model_validate_json(answer.content)
    assert problem.type == "/problems#not_authenticated"
    is_told = bool(headers) and not headers.get("Authorization", "").startswith("Basic")
    assert problem.code == ("credentials_invalid" if is_told else "credentials_missing")
    assert ("invalid_token" in answer.headers["www-authenticate"]) is is_told


def test_what_a_proxy_was_told_is_no_matter_here(here: Door) -> None:
    headers = {"Authorization": "Basic YW5uYTpwYXNz", "X-API-Key": here.key("anna")["Authorization"][7:]}
    assert here.client.get("/v1/jobs", headers=headers).status_code == 200


def test_a_key_with_one_letter_changed_does_not_open(here: Door) -> None:
    key = here.key("anna")["Authorization"]
    for place in (10, 25, len(key) - 1):
        changed = key[:place] + ("0" if key[place] != "0" else "1") + key[place + 1 :]
        assert here.client.get("/v1/jobs", headers={"Authorization": changed}).status_code == 401


def test_a_rotated_key_opens_until_the_overlap_ends_and_a_revoked_one_at_no_time(here: Door) -> None:
    first = here.key("anna")
    second = {"X-API-Key": here.keys.rotate("anna", 3600, OPERATOR)}
    assert [here.client.get("/v1/jobs", headers=one).status_code for one in (first, second)] == [200, 200]
    third = {"X-API-Key": here.keys.rotate("anna", 0, OPERATOR)}
    assert [here.client.get("/v1/jobs", headers=one).status_code for one in (first, second, third)] == [401, 401, 200]
    assert here.keys.revoke("anna", OPERATOR) == 1
    assert here.client.get("/v1/jobs", headers=third).status_code == 401


def test_a_key_that_has_expired_does_not_open(here: Door) -> None:
    expired = here.keys.create("short", ["read"], "default", -1.0, OPERATOR)
    assert here.client.get("/v1/jobs", headers={"X-API-Key": expired}).status_code == 401


@pytest.mark.parametrize("path", ["/v1/jobs?api_key=x", "/v1/jobs?ACCESS_TOKEN=x", "/v1/capabilities?state={key}"])
def test_a_key_in_the_url_is_refused_and_written_nowhere(here: Door, path: str) -> None:
    key = here.key("anna")["Authorization"].removeprefix("Bearer ")
    with capture_logs() as lines:
        answer = here.client.get(path.replace("{key}", key), headers=here.key("anna"))
    assert (answer.status_code, answer.json()["code"]) == (400, "key_in_url")
    assert key not in answer.text
    assert key[-64:] not in json.dumps(lines, default=str)


def test_the_secret_is_in_no_table_log_answer_or_metric(here: Door, tmp_path: Path) -> None:
    with capture_logs() as lines:
        headers = here.key("anna", ["operate"])
        told = [here.client.get(path, headers=headers).text for path in ("/v1/audit", "/metrics", "/v1/session")]
    secret = headers["Authorization"][-64:]
    assert secret not in "".join(told) + json.dumps(lines, default=str)
    with sqlite3.connect(tmp_path / "data/jobs.sqlite") as connection:
        dump = "\n".join(connection.iterdump())
    assert "anna" in dump
    assert secret not in dump


def test_who_is_sent_away_has_not_sent_a_body_for_nothing(here: Door, tmp_path: Path) -> None:
    """The body of a refused upload is not stored."""
    assert here.client.post("/v1/jobs", files=SCAN).status_code == 401
    assert here.client.post("/v1/jobs", files=SCAN, headers=here.key("reader", ["read"])).status_code == 403
    assert left_in(tmp_path / "uploads") == []
    assert left_in(here.client.app.state.desk.jobs.store.incoming) == []  # type: ignore[attr-defined]
    assert here.queue.tickets == []


def test_probes_are_open_and_figures_are_not(here: Door, tmp_path: Path) -> None:
    assert here.client.get("/healthz").status_code == 200
    assert here.client.get("/readyz").status_code == 200
    assert here.client.get("/metrics").status_code == 401
    assert here.client.get("/metrics", headers=here.key("reader", ["read"])).status_code == 403
    assert here.client.get("/metrics", headers=here.key("prometheus", ["operate"])).status_code == 200
    (tmp_path / "open").mkdir()
    with door(tmp_path / "open", open_metrics=True, open_pages=False) as other:
        assert other.client.get("/metrics").status_code == 200
        assert other.client.get("/docs").status_code == 401
        assert other.client.get("/docs", headers=other.key("reader", ["read"])).status_code == 200


def test_refusals_are_counted_and_the_trail_does_not_grow_with_them(here: Door) -> None:
    for _ in range(30):
        here.client.get("/v1/jobs")
    chief = here.key("chief", ["operate"])
    assert 'code="credentials_missing",status="401",type="not_authenticated"} 30.0' in (
        here.client.get("/metrics", headers=chief).text
    )
    here.client.app.state.access.refusals.tell()  # type: ignore[attr-defined]
    rows = here.client.get("/v1/audit?action=access.refused", headers=chief).json()["entries"]
    assert sum(row["values"]["credentials_missing"] for row in rows) == 30
    assert len(rows) <= 2
