"""What belongs to another tenant is to a caller as what does not exist."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.access.needs import NEEDS
from app.identity import DEFAULT_TENANT
from app.jobs.intake import key_digest, tenants_own
from tests.api.access.callers import SCAN, Door, door

UNKNOWN = "0" * 32
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/jobs/{job_id}/retry": {"json": {}},
    "/v1/jobs/{job_id}/pacs": {"json": {"target": "x", "kinds": ["sr"]}},
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path, pacs=True) as made:
        made.key("anna", tenant="a")
        made.key("bert", tenant="b")
        made.key("chief", ["operate"], tenant="ops")
        yield made


@pytest.mark.parametrize(
    ("method", "template"), [key for key in NEEDS if re.search(r"\{(job|batch)_id\}", key[1])], ids=str
)
def test_a_foreign_id_is_answered_as_an_unknown_one_in_every_route(here: Door, method: str, template: str) -> None:
    if "batch_id" in template:
        shown = here.client.post("/v1/batches", files=_zip(here), headers=here.key("anna")).json()
    else:
        shown = here.submit(here.key("anna"))
    told = []
    for wanted in (shown["id"], UNKNOWN):
        path = re.sub(r"\{(job|batch)_id\}", wanted, template).replace("{form}", "json").replace("{nodule_id}", "x")
        answer = here.client.request(method, path, headers=here.key("bert"), **_BODIES.get(template, {}))
        assert wanted not in answer.text
        headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "ratelimit")}
        told.append((answer.status_code, {**answer.json(), "instance": ""}, headers))
    assert told[0] == told[1]
    assert told[0][0] == 404
    own = re.sub(r"\{(job|batch)_id\}", shown["id"], template).replace("{form}", "json").replace("{nodule_id}", "x")
    if not template.endswith("/events"):
        answer = here.client.request(method, own, headers=here.key("anna"), **_BODIES.get(template, {}))
        assert answer.json().get("code") not in ("unknown_job", "unknown_batch")


@pytest.mark.parametrize("wanted", ["x", "'; DROP TABLE jobs", "0" * 33, "%00", "G" * 32])
def test_what_is_no_id_is_unknown_too(here: Door, wanted: str) -> None:
    answer = here.client.get(f"/v1/jobs/{wanted}", headers=here.key("anna"))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_each_tenant_lists_its_own_and_operate_lists_all(here: Door) -> None:
    first, second = here.submit(here.key("anna"))["id"], here.submit(here.key("bert"))["id"]

    def listed(name: str) -> set[str]:
        return {job["id"] for job in here.client.get("/v1/jobs", headers=here.key(name)).json()["jobs"]}

    assert listed("anna") == {first}
    assert listed("bert") == {second}
    assert listed("chief") == {first, second}
    pages = here.client.get("/v1/jobs?limit=1", headers=here.key("anna")).json()
    assert pages["next"] is None


def test_operate_reaches_the_jobs_of_all(here: Door) -> None:
    job = here.submit(here.key("anna"))
    again = here.client.post(f"/v1/jobs/{job['id']}/retry", json={}, headers=here.key("chief"))
    assert again.status_code == 202
    assert here.client.get(again.headers["location"], headers=here.key("anna")).status_code == 200, "it stays anna's"
    assert here.client.get(again.headers["location"], headers=here.key("bert")).status_code == 404
    assert here.client.delete(f"/v1/jobs/{job['id']}/data", headers=here.key("chief")).status_code == 200


def test_the_same_content_of_two_tenants_is_two_scans(here: Door, tmp_path: Path) -> None:
    """Neither is answered from the other's result, nor told of the other's job, and erasing one leaves the other."""
    first = here.submit(here.key("anna"))
    _finish(here)
    assert here.submit(here.key("anna"))["answered_from"] == first["id"]
    other = here.submit(here.key("bert"))
    assert (other["state"], other["answered_from"]) == ("queued", None)
    receipt = here.client.delete(f"/v1/jobs/{other['id']}/data", headers=here.key("bert")).json()
    assert receipt["scan_shared_with"] == []
    assert receipt["files_removed"] > 0
    result = here.client.get(f"/v1/jobs/{first['id']}/result", headers=here.key("anna"))
    assert result.status_code == 200


def test_the_same_idempotency_key_of_two_tenants_is_two_jobs(here: Door) -> None:
    made = [
        here.client.post("/v1/jobs", files=SCAN, headers={**here.key(name), "Idempotency-Key": "one"}).json()["id"]
        for name in ("anna", "anna", "bert")
    ]
    assert made[0] == made[1] != made[2]
    other = here.client.post(
        "/v1/jobs", files={"files": ("x", b"other")}, headers={**here.key("bert"), "Idempotency-Key": "two"}
    )
    assert other.status_code == 202, "what anna sent under another key is no mismatch"


def test_a_prior_of_another_tenant_is_unknown(here: Door) -> None:
    job = here.submit(here.key("anna"))
    told = []
    for prior in (job["id"], UNKNOWN):
        answer = here.client.post("/v1/jobs", files=SCAN, data={"prior": prior}, headers=here.key("bert"))
        told.append((answer.status_code, {**answer.json(), "instance": ""}))
    assert told[0] == told[1]
    assert told[0][1]["code"] == "unknown_prior"
    assert here.submit(here.key("anna"), b"later", prior=job["id"])["state"] == "queued"
    mine = here.submit(here.key("bert"), b"bert's")
    retried = here.client.post(f"/v1/jobs/{mine['id']}/retry", json={"prior": job["id"]}, headers=here.key("bert"))
    assert retried.json()["code"] == "unknown_prior"


def test_the_default_tenant_keeps_the_digests_it_had() -> None:
    assert tenants_own("ab", DEFAULT_TENANT) == "ab"
    assert tenants_own("ab", "a") not in ("ab", tenants_own("ab", "b"))
    assert key_digest("k", "a") != key_digest("k", DEFAULT_TENANT)


def test_the_trail_says_who_did_what_with_which_job(here: Door) -> None:
    job = here.submit(here.key("anna"))["id"]
    here.client.delete(f"/v1/jobs/{job}", headers=here.key("anna"))
    sent = {"target": "archive", "kinds": ["sr"]}
    assert here.client.post(f"/v1/jobs/{job}/pacs", json=sent, headers=here.key("anna")).status_code == 202
    here.client.delete(f"/v1/jobs/{job}/data", headers=here.key("chief"))
    shown = here.client.get(f"/v1/audit?job_id={job}", headers=here.key("chief")).json()
    assert [(row["actor"], row["action"], row["tenant"]) for row in shown["entries"]] == [
        ("key:chief", "job.erase", "ops"),
        ("key:anna", "job.send", "a"),
        ("key:anna", "job.cancel", "a"),
        ("key:anna", "job.create", "a"),
    ]
    first = here.client.get(f"/v1/audit?job_id={job}&limit=2", headers=here.key("chief")).json()
    rest = here.client.get(first["next"], headers=here.key("chief")).json()
    assert [*first["entries"], *rest["entries"]] == shown["entries"]
    assert rest["next"] is None
    assert here.client.get("/v1/audit", headers=here.key("anna")).status_code == 403
    assert here.client.get("/v1/audit?cursor=x", headers=here.key("chief")).json()["code"] == "cursor_invalid"


def test_jobs_from_before_belong_to_the_default_tenant(tmp_path: Path) -> None:
    with door(tmp_path, access="off") as here:
        job = here.submit({})["id"]
    with sqlite3.connect(tmp_path / "data/jobs.sqlite") as connection:
        assert connection.execute("SELECT tenant FROM jobs").fetchall() == [("default",)]
    with door(tmp_path) as here:
        assert here.client.get(f"/v1/jobs/{job}", headers=here.key("heir")).status_code == 200
        assert here.client.get(f"/v1/jobs/{job}", headers=here.key("anna", tenant="a")).status_code == 404


def test_jobs_of_the_pacs_belong_to_the_tenant_of_the_settings(tmp_path: Path) -> None:
    with door(tmp_path, pacs=True, pacs_tenant="radiology") as here:
        assert here.client.app.state.pacs.handover.tenant == "radiology"  # type: ignore[attr-defined]


def _finish(here: Door) -> None:
    """Work on what waits, as a worker would."""
    from contextlib import nullcontext  # noqa: PLC0415

    from app.api.job_work import rendered  # noqa: PLC0415
    from app.jobs.runner import Runner  # noqa: PLC0415
    from tests.api.standins import make_findings, make_nodule  # noqa: PLC0415

    jobs = here.client.app.state.desk.jobs  # type: ignore[attr-defined]
    runner = Runner(
        ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w" * 32,
        analyse=lambda _files, _order, _told: make_findings(make_nodule(1, 0.9)), render=rendered, turn=nullcontext,
        timeout_s=60.0, observe=lambda _findings, _waited_s: None,
    )  # fmt: skip
    while here.queue.tickets:
        runner(here.queue.tickets.pop(0))


def _zip(here: Door) -> dict[str, tuple[str, bytes]]:
    """A volume file that the reader takes, in a batch of one."""
    import io  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 64 64 40\nElementSpacing = 0.8 0.8 2\nElementType = MET_SHORT\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementDataFile = LOCAL\n"
    )
    made = io.BytesIO(header.encode() + np.full((40, 64, 64), -800, "<i2").tobytes())
    return {"files": ("scan.mha", made.getvalue())}
