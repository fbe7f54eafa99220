"""Keys, sessions, owners and the trail, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.identity import Role
from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.jobs.api_keys import ApiKeys, KeyState
from app.jobs.audit_trail import AuditFilters, read_audit
from app.jobs.browser_sessions import Sessions
from app.jobs.intake import Request
from app.jobs.lookup import Filters
from app.jobs.ownership import tenant_of_batch, tenant_of_job
from app.jobs.rows import Who
from app.jobs.tables import api_keys, scans
from tests.jobs.installations import ORDER, WHO, World, world


@pytest.fixture
def here(tmp_path: Path, database_url: str | None) -> Iterator[World]:
    with world(tmp_path, database_url) as made:
        yield made


def submit(here: World, tenant: str, key: str | None = None) -> str:
    folder = here.jobs.store.incoming / "upload"
    folder.mkdir(exist_ok=True)
    (folder / "000000").write_bytes(b"scan")
    request = Request(ORDER, replace(WHO, tenant=tenant), key)
    return here.jobs.intake.accept(folder, [InputFile(folder / "000000", "x")], request)


def test_a_key_lives_from_its_making_to_its_end(here: World) -> None:
    keys = ApiKeys(here.jobs.database)
    made = keys.create("a", [Role.READ, Role.SUBMIT], "radiology", 3600, WHO)
    found = keys.find(made)
    assert found is not None
    assert (found.name, found.roles, found.tenant) == ("a", {Role.READ, Role.SUBMIT}, "radiology")
    assert keys.find(made[:-1] + ("0" if made[-1] != "0" else "1")) is None
    newer = keys.rotate("a", 0, WHO)
    assert keys.find(made) is None
    rotated = keys.find(newer)
    assert rotated is not None
    assert rotated.expires_at is not None
    assert rotated.expires_at - rotated.created_at == pytest.approx(3600)
    assert rotated.identity.actor == "key:a"
    assert keys.revoke("a", WHO) == 1
    assert keys.find(newer) is None
    assert sorted(state for _, state in keys.listed()) == [KeyState.EXPIRED, KeyState.REVOKED]
    with pytest.raises(OptionError):
        keys.rotate("a", 60, WHO)


def test_an_overlap_does_not_lengthen_a_key(here: World) -> None:
    keys = ApiKeys(here.jobs.database)
    keys.create("a", [Role.READ], "default", 60, WHO)
    ends = [key.expires_at for key, _ in keys.listed()]
    keys.rotate("a", 86_400, WHO)
    assert keys.listed()[-1][0].expires_at == ends[0]


def test_only_the_hash_of_a_secret_is_kept(here: World) -> None:
    made = ApiKeys(here.jobs.database).create("a", [Role.READ], "default", None, WHO)
    with here.jobs.database.reading() as connection:
        row = connection.execute(sa.select(api_keys)).mappings().one()
    assert made.rpartition("_")[2] not in str(dict(row))
    assert len(row["secret_sha256"]) == 64


def test_a_session_stands_for_its_key(here: World) -> None:
    keys, sessions = ApiKeys(here.jobs.database), Sessions(here.jobs.database)
    key = keys.find(keys.create("a", [Role.READ], "default", None, WHO))
    assert key is not None
    cookie = sessions.begin(key, WHO)
    found = sessions.find(cookie)
    assert found is not None
    assert found.id == key.id
    assert sessions.find("other") is None
    assert sessions.end(cookie, WHO) is True
    assert sessions.end(cookie, WHO) is False
    assert sessions.find(cookie) is None


def test_jobs_scans_and_keys_are_of_a_tenant(here: World) -> None:
    first, second = submit(here, "a", "key"), submit(here, "b", "key")
    assert first != second
    assert submit(here, "a", "key") == first
    database = here.jobs.database
    assert (tenant_of_job(database, first), tenant_of_job(database, second)) == ("a", "b")
    assert tenant_of_job(database, "0" * 32) is None
    assert tenant_of_job(database, "\x00") is None
    assert tenant_of_batch(database, first) is None
    assert [job.id for job in here.jobs.lookup.jobs(Filters(tenant="b"), 10)] == [second]
    assert [job.tenant for job in here.jobs.lookup.jobs(Filters(), 10)] == ["b", "a"]
    with database.reading() as connection:
        assert len(connection.execute(sa.select(scans)).all()) == 2
    here.work()
    assert here.analysed == [b"scan", b"scan"], "neither was answered from the other"


def test_the_trail_is_read_in_pages_and_narrowed(here: World) -> None:
    first = submit(here, "a")
    submit(here, "b")
    here.jobs.ledger.cancel(first, Who("bert", tenant="b"))
    database = here.jobs.database
    every = read_audit(database, AuditFilters(), 10)
    assert [(one.actor, one.action, one.tenant) for one in every] == [
        ("bert", "job.cancel", "b"),
        ("anna", "job.create", "b"),
        ("anna", "job.create", "a"),
    ]
    assert read_audit(database, AuditFilters(), 10, (every[0].at, every[0].id)) == every[1:]
    assert read_audit(database, AuditFilters(action="job.create", actor="anna", job_id=first), 10) == every[2:]
    assert read_audit(database, AuditFilters(after=every[1].at), 10) == every[:1]
    assert read_audit(database, AuditFilters(before=every[1].at), 10) == every[2:]
