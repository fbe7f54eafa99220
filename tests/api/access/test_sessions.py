"""Browsers: a key is exchanged for a cookie, which no script reads and no other site can use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.jobs.browser_sessions import Sessions
from app.jobs.rows import Who
from app.jobs.tables import browser_sessions
from tests.api.access.callers import OPERATOR, SCAN, Door, door
from tests.api.standins import Serve

OURS = {"X-Requested-With": "lungnodule"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path) as made:
        yield made


def sign_in(here: Door, name: str = "anna", roles: tuple[str, ...] = ("submit", "read")) -> str:
    key = here.key(name, roles)["Authorization"].removeprefix("Bearer ")
    answer = here.client.post("/v1/session", json={"key": key})
    assert (answer.status_code, answer.content) == (204, b"")
    return answer.headers["set-cookie"]


def test_the_cookie_is_for_this_site_and_for_no_script(here: Door) -> None:
    parts = {part.strip().lower() for part in sign_in(here).split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= parts
    assert "secure" not in parts


@pytest.mark.parametrize("how", ["setting", "proxy"])
def test_the_cookie_is_for_https_where_that_is_how_browsers_come(tmp_path: Path, how: str) -> None:
    settings = {"https_only": True} if how == "setting" else {"trusted_proxies": ("10.0.0.0/8",)}
    with door(tmp_path, root_path="/lungnodule", **settings) as here:
        here.client._transport.client = ("10.1.1.1", 4711)  # type: ignore[attr-defined]
        here.client.headers["X-Forwarded-Proto"] = "https"
        answer = here.client.post("/v1/session", json={"key": here.key("anna")["Authorization"][7:]})
        parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
        assert {"secure", "path=/lungnodule"} <= parts
        assert ("strict-transport-security" in answer.headers) is (how == "setting")


def test_the_page_learns_who_is_signed_in(here: Door) -> None:
    nobody = {"access": "required", "authenticated": False, "name": None, "roles": [], "tenant": None}
    assert here.client.get("/v1/session").json() == nobody
    sign_in(here)
    assert here.client.get("/v1/session").json() == {
        "access": "required",
        "authenticated": True,
        "name": "anna",
        "roles": ["read", "submit"],
        "tenant": "default",
    }
    assert here.client.get("/v1/jobs").status_code == 200
    assert here.client.delete("/v1/session", headers=OURS).status_code == 204
    assert here.client.get("/v1/session").json() == nobody
    assert here.client.get("/v1/jobs").status_code == 401


def test_signing_out_ends_the_session_and_not_only_the_cookie(here: Door) -> None:
    cookie = sign_in(here).split(";")[0]
    here.client.delete("/v1/session", headers=OURS)
    assert here.client.get("/v1/jobs", headers={"Cookie": cookie}).status_code == 401


def test_a_cookie_alone_changes_nothing(here: Door) -> None:
    sign_in(here)
    for headers in ({}, {"X-Requested-With": "XMLHttpRequest"}):
        refused = here.client.post("/v1/jobs", files=SCAN, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "header_missing")
    assert here.client.delete("/v1/session").status_code == 403
    assert here.client.post("/v1/jobs", files=SCAN, headers=OURS).status_code == 202
    with_key = here.client.post("/v1/jobs", files=SCAN, headers=here.key("anna"))
    assert with_key.status_code == 202, "a key is no cookie: other sites do not have it"


@pytest.mark.parametrize("access", ["off", "required"])
def test_what_another_sites_page_sends_is_refused(tmp_path: Path, access: str) -> None:
    """Also on loopback, where there is no key: any page that somebody looks at could send a form there."""
    with door(tmp_path, access=access) as here:
        headers = {**here.key("anna"), "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
        refused = here.client.post("/v1/jobs", files=SCAN, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
        headers["Sec-Fetch-Site"] = "same-origin"
        assert here.client.post("/v1/jobs", files=SCAN, headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("ct.example", True),
        ("CT.example:8443", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("evil.example", False),
        ("ct.example.evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_is_not_the_services_own_leads_nowhere(tmp_path: Path, host: str, *, allowed: bool) -> None:
    with door(tmp_path, access="off", allowed_hosts="ct.example, 127.0.0.1,::1") as here:
        answer = here.client.get("/v1/jobs", headers={"Host": host})
        assert (answer.status_code, answer.json().get("code")) == ((200, None) if allowed else (403, "host_unknown"))
        assert here.client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/session", "/healthz", "/docs"])
def test_other_sites_may_read_nothing(here: Door, path: str) -> None:
    """CORS is closed: no answer has its headers, and a preflight is refused."""
    asked = {"Origin": "https://evil.example"}
    plain = here.client.get(path, headers={**asked, **here.key("anna")})
    preflight = here.client.options(
        path, headers={**asked, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    )
    assert preflight.status_code in (401, 405)
    for answer in (plain, preflight):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "camera=()" in answer.headers["permissions-policy"]
        assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("body", [{"key": "ln_wrong"}, {"key": "x", "role": "operate"}, {}, [], {"key": 1}])
def test_nobody_signs_in_with_anything_else(here: Door, body: object) -> None:
    answer = here.client.post("/v1/session", json=body)
    assert answer.status_code == (401 if body == {"key": "ln_wrong"} else 422)
    assert "set-cookie" not in answer.headers


def test_there_is_nothing_to_sign_in_to_while_access_is_off(serve: Serve) -> None:
    client = serve()
    assert client.get("/v1/session").json() == {
        "access": "off",
        "authenticated": False,
        "name": None,
        "roles": ["operate", "read", "submit"],
        "tenant": "default",
    }
    assert client.post("/v1/session", json={"key": "x"}).json()["code"] == "access_off"


def test_a_session_ends_with_its_key(here: Door) -> None:
    sign_in(here)
    here.keys.revoke("anna", OPERATOR)
    assert here.client.get("/v1/jobs").status_code == 401


def test_a_session_ends_when_it_is_old_or_idle(here: Door) -> None:
    key = here.keys.find(here.key("anna")["Authorization"][7:])
    assert key is not None
    sessions = Sessions(here.keys.database)
    made = sessions.begin(key, Who("key:anna"))
    assert sessions.find(made) == replace(key, last_used_at=sessions.find(made).last_used_at)  # type: ignore[union-attr]
    for changed in ({"expires_at": 1.0}, {"last_seen_at": 1.0}):
        made = sessions.begin(key, Who("key:anna"))
        with here.keys.database.transaction() as connection:
            connection.execute(sa.update(browser_sessions).values(changed))
        assert sessions.find(made) is None
        sessions.begin(key, Who("key:anna"))
        with here.keys.database.reading() as connection:
            assert len(connection.execute(sa.select(browser_sessions)).all()) == 1, "what has ended is removed"


def test_a_session_that_is_used_does_not_become_idle(here: Door) -> None:
    key = here.keys.find(here.key("anna")["Authorization"][7:])
    assert key is not None
    sessions = Sessions(here.keys.database)
    made = sessions.begin(key, Who("key:anna"))

    def seen() -> float:
        with here.keys.database.reading() as connection:
            return float(connection.execute(sa.select(browser_sessions.c.last_seen_at)).scalar_one())

    before = seen() - 1800
    with here.keys.database.transaction() as connection:
        connection.execute(sa.update(browser_sessions).values(last_seen_at=before))
    assert sessions.find(made) is not None
    assert seen() > before + 1000


def test_one_key_does_not_fill_the_table(here: Door) -> None:
    key = here.keys.find(here.key("anna")["Authorization"][7:])
    assert key is not None
    sessions = Sessions(here.keys.database)
    made = [sessions.begin(key, Who("key:anna")) for _ in range(103)]
    assert [sessions.find(one) is not None for one in made] == [False] * 3 + [True] * 100


def test_sign_ins_are_in_the_trail(here: Door) -> None:
    sign_in(here)
    here.client.delete("/v1/session", headers=OURS)
    shown = here.client.get("/v1/audit?actor=key:anna", headers=here.key("chief", ["operate"])).json()["entries"]
    assert [row["action"] for row in shown] == ["session.end", "session.begin"]
