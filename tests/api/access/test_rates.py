"""A caller that asks too much, or too much that is not there, is slowed down; the others are not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.api.access.rates import MISSES_PER_MIN, REQUESTS_PER_MIN, address_of, rates_of
from app.settings import Settings
from tests.api.access.callers import Door, door
from tests.api.standins import Serve


def statuses(here: Door, headers: dict[str, str], path: str, times: int) -> list[int]:
    return [here.client.get(path, headers=headers).status_code for _ in range(times)]


def test_more_requests_than_a_caller_may_are_429(tmp_path: Path) -> None:
    with door(tmp_path, requests_per_min=3) as here:
        assert statuses(here, here.key("anna"), "/v1/jobs", 5) == [200, 200, 200, 429, 429]
        refused = here.client.get("/v1/jobs", headers=here.key("anna"))
        assert refused.json()["type"] == "/problems#rate_limited"
        assert refused.json()["values"]["limit"] == 3
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        answer = here.client.get("/v1/jobs", headers=here.key("bert"))
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"requests";q=3;w=60'
        assert answer.headers["ratelimit"].startswith('"requests";r=2;t=')
        assert statuses(here, {}, "/healthz", 10) == [200] * 10, "probes are not counted"


def test_a_thousand_unknown_ids_are_slowed_down(tmp_path: Path) -> None:
    with door(tmp_path) as here:
        job = here.submit(here.key("anna"))["id"]
        tried = [
            here.client.get(f"/v1/jobs/{number:032x}", headers=here.key("bert")).status_code for number in range(1000)
        ]
        assert tried.count(404) <= MISSES_PER_MIN + 2
        assert set(tried) == {404, 429}
        assert here.client.get(f"/v1/jobs/{job}", headers=here.key("bert")).json()["code"] == "too_many_misses"
        assert here.client.get("/v1/jobs", headers=here.key("bert")).status_code == 200, "what names nothing goes on"
        assert here.client.get(f"/v1/jobs/{job}", headers=here.key("anna")).status_code == 200


def test_guessing_keys_is_slowed_down_and_locks_nobody_out(tmp_path: Path) -> None:
    with door(tmp_path, misses_per_min=5) as here:
        guessed = [
            here.client.get("/v1/jobs", headers={"X-API-Key": f"ln_{number:012x}_{0:064x}"}).status_code
            for number in range(8)
        ]
        assert guessed == [401] * 5 + [429] * 3
        assert here.client.post("/v1/session", json={"key": "ln_x"}).status_code == 429
        assert here.client.get("/v1/jobs", headers=here.key("anna")).status_code == 200


def test_on_loopback_nothing_is_limited_unless_the_settings_say_so(serve: Serve) -> None:
    assert (REQUESTS_PER_MIN, MISSES_PER_MIN) == (6000, 120)
    client = serve()
    answers = [client.get(f"/v1/jobs/{number:032x}") for number in range(130)]
    assert {answer.status_code for answer in answers} == {404}
    assert "ratelimit" not in answers[0].headers
    limited = serve(misses_per_min=3)
    tried = [limited.get(f"/v1/jobs/{number:032x}").status_code for number in range(6)]
    assert tried == [404] * 3 + [429] * 3
    assert rates_of(Settings(host="0.0.0.0", requests_per_min=0)).count("x") is None


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "counted_as_one"),
    [
        ((), "10.0.0.1", ["203.0.113.1", "203.0.113.2"], True),
        (("10.0.0.0/8",), "10.0.0.1", ["203.0.113.1", "203.0.113.2"], False),
        (("10.0.0.0/8",), "198.51.100.7", ["203.0.113.1", "203.0.113.2"], True),
        (("10.0.0.0/8",), "10.0.0.1", ["9.9.9.1, 203.0.113.1", "9.9.9.2, 203.0.113.1"], True),
    ],
)
def test_only_the_proxies_of_the_settings_say_where_a_caller_is(
    tmp_path: Path, trusted: tuple[str, ...], peer: str, forwarded: list[str], *, counted_as_one: bool
) -> None:
    with door(tmp_path, misses_per_min=1, trusted_proxies=trusted) as here:
        here.client._transport.client = (peer, 4711)  # type: ignore[attr-defined]
        tried = [here.client.get("/v1/jobs", headers={"X-Forwarded-For": one}).status_code for one in forwarded]
        assert tried == ([401, 429] if counted_as_one else [401, 401])


def test_an_ipv6_network_is_one_caller() -> None:
    assert address_of(("2001:db8:1:2:3::4", 1)) == address_of(("2001:db8:1:2:ffff::1", 1))
    assert address_of(("2001:db8:1:3::4", 1)) != address_of(("2001:db8:1:2::4", 1))
    assert address_of(("::ffff:10.0.0.1", 1)) != address_of(("::ffff:10.0.0.2", 1))
    assert address_of(("10.0.0.1", 1)) == "address:10.0.0.1"
    assert address_of(None) == address_of(("testclient", 1))


def test_counting_leaves_no_thread_running(tmp_path: Path) -> None:
    with door(tmp_path) as here:
        statuses(here, here.key("anna"), "/v1/jobs", 5)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
            assert not thread.is_alive()
