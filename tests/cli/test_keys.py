"""Keys and the audit trail from the command line, on a database of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.cli.client import RequestRefused, credentials, predict
from app.main import create_app
from app.settings import Settings, UnknownSetting, refuse_unknown_settings
from tests.api.standins import Recorder, make_model, shelved
from tests.cli.conftest import Run
from tests.cli.test_client import service
from tests.jobs.installations import HandQueue


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUNGNODULE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def made(run: Run, *arguments: object) -> str:
    done = run("keys", *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def test_a_key_that_was_made_opens_the_service_until_it_is_revoked(run: Run, data_dir: Path) -> None:
    key = made(run, "create", "radiology", "--roles", "submit,read", "--tenant", "radiology", "--expires", "90d")
    settings = Settings(data_dir=data_dir, access="required")
    app = create_app(
        settings, load=lambda _: shelved(make_model()), run=Recorder(), make_queue=lambda _database: HandQueue()
    )
    with TestClient(app) as client:

        def status(presented: str) -> int:
            return client.get("/v1/jobs", headers={"X-API-Key": presented}).status_code

        shown = client.get("/v1/session", headers={"X-API-Key": key}).json()
        assert shown == {
            "access": "required", "authenticated": True, "name": "radiology", "roles": ["read", "submit"],
            "tenant": "radiology",
        }  # fmt: skip
        newer = made(run, "rotate", "radiology", "--overlap", "2d")
        assert (status(key), status(newer)) == (200, 200)
        assert made(run, "revoke", "radiology") == "2 revoked"
        assert (status(key), status(newer)) == (401, 401)


def test_the_list_says_everything_but_the_secret(run: Run) -> None:
    key = made(run, "create", "pacs", "--roles", "submit", "--expires", "12h")
    (row,) = json.loads(made(run, "list", "--json"))
    assert (row["name"], row["state"], row["roles"], row["tenant"]) == ("pacs", "valid", ["submit"], "default")
    assert row["last_used_at"] is None
    newer = made(run, "rotate", "pacs", "--overlap", "0m")
    listed = made(run, "list")
    assert [line.split()[:2] for line in listed.splitlines()] == [["pacs", "valid"], ["pacs", "expired"]]
    assert not any(secret.rpartition("_")[2] in listed for secret in (key, newer))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "x", "--roles", "admin"], "roles_invalid"),
        (["create", "x", "--roles", ","], "roles_missing"),
        (["create", "Doe^John", "--roles", "read"], "name_invalid"),
        (["create", "x", "--roles", "read", "--tenant", "A B"], "name_invalid"),
        (["create", "x", "--roles", "read", "--expires", "soon"], "duration_invalid"),
        (["rotate", "x"], "key_unknown"),
        (["revoke", "x"], "key_unknown"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(run: Run, arguments: list[str], code: str) -> None:
    done = run("keys", *arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"error[{code}]" in done.stderr


def test_two_valid_keys_do_not_have_one_name(run: Run) -> None:
    made(run, "create", "x", "--roles", "read")
    assert "error[key_exists]" in run("keys", "create", "x", "--roles", "read").stderr
    made(run, "revoke", "x")
    made(run, "create", "x", "--roles", "read")


def test_the_trail_says_who_made_and_ended_keys(run: Run) -> None:
    made(run, "create", "x", "--roles", "read")
    made(run, "rotate", "x")
    made(run, "revoke", "x")
    done = run("audit", "--json", "--limit", 2)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["actor"], row["action"], row["values"]["key"]) for row in rows] == [
        ("command-line", "key.revoke", "x"),
        ("command-line", "key.rotate", "x"),
    ]
    assert run("audit", "--action", "key.create").stdout.split()[1:3] == ["command-line", "key.create"]


def test_our_own_client_sends_the_key_of_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials() == {}
    monkeypatch.setenv("LUNGNODULE_API_KEY", "ln_x")
    refuse_unknown_settings({"LUNGNODULE_API_KEY": "ln_x"})
    with pytest.raises(UnknownSetting):
        refuse_unknown_settings({"LUNGNODULE_API_KEYS": "x"})
    (tmp_path / "scan.dcm").write_bytes(b"scan")
    with service(401, {"code": "credentials_invalid", "detail": "No."}) as (url, asked):
        with pytest.raises(RequestRefused, match="No"):
            predict(url, [tmp_path / "scan.dcm"])
        assert asked["headers"]["Authorization"] == "Bearer ln_x"
