"""The installation in numbers: each counted from what really happened, and gone with its job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from app.imaging.errors import NotChestCt
from app.jobs.overview import DAY_S
from app.jobs.rows import Who
from app.jobs.tables import job_findings, jobs
from app.main import create_app
from app.settings import Settings
from tests.api.analysed import refused
from tests.api.standins import make_findings, make_model, make_nodule, shelved
from tests.jobs.installations import HandQueue, World, world

FOUND = {
    b"three": [make_nodule(number, probability) for number, probability in ((1, 0.95), (2, 0.55), (3, 0.55))],
    b"none": [],
    b"one": [make_nodule(1, 1.0)],
}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, min_free_disk_bytes=0) as made:

        def analyse(files: Any, _order: Any, _on_progress: Any) -> Any:
            content = files[0].path.read_bytes()
            if content == b"head":
                raise NotChestCt("No lungs.", code="no_lungs")
            return make_findings(*FOUND[content], timings_s={"read": 0.1 * len(content), "total": 1.0})

        object.__setattr__(made.runner, "analyse", analyse)
        yield made


@pytest.fixture
def client(here: World) -> Iterator[TestClient]:
    """Another process on the same database."""
    settings = Settings(data_dir=here.jobs.settings.data_dir, min_free_disk_bytes=0)
    app = create_app(settings, load=lambda _: shelved(make_model()), make_queue=lambda _: HandQueue())
    with TestClient(app) as made:
        yield made


def test_what_happened_is_counted(here: World, client: TestClient) -> None:
    answered = {content: here.submit(content) for content in FOUND}
    refused_job = here.submit(b"head")
    here.work()
    here.submit(b"three")  # the same work again: answered from the first
    here.work()
    here.submit(b"one more")
    told = client.get("/v1/dashboard").json()
    assert told["days"] == 30
    assert told["jobs"]["by_state"] == {
        "queued": 1, "running": 0, "succeeded": 4, "failed": 1, "parked": 0, "cancelled": 0,
    }  # fmt: skip
    assert len(told["jobs"]["per_day"]) == 30
    today = told["jobs"]["per_day"][-1]
    assert (today["succeeded"], today["failed"]) == (4, 1)
    with here.jobs.database.reading() as connection:
        now = here.jobs.database.now(connection)
    assert today["day"] == datetime.fromtimestamp(now, UTC).date().isoformat()
    assert told["jobs"]["per_hour_now"] == 4
    assert told["stages_s"]["read"] == {"median": 0.4, "p90": 0.48, "n": 3}
    assert told["refusals"] == {"no_lungs": 1}
    assert told["models"] == [{"model": "standin:1.2.3", "name": "standin", "version": "1.2.3", "n": 4}]
    assert told["findings"]["scans"] == 3  # the copied answer is counted once
    assert told["findings"]["nodules_per_scan"] == [1, 1, 0, 1]
    assert sum(told["findings"]["diameter_mm_histogram"]["counts"]) == 4
    assert told["findings"]["diameter_mm_histogram"]["counts"][3] == 4  # 7.25 mm: from 6 to 8
    assert told["findings"]["probability_histogram"]["counts"] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert told["findings"]["malignancy_histogram"]["counts"][2] == 4
    assert told["queue"]["waiting"] == 1
    assert told["disk"]["free_bytes"] > 0
    assert told["disk"]["scans_bytes"] > 0
    assert refused_job not in str(told)
    here.jobs.eraser.erase(answered[b"three"], Who("anna"), "request")
    after = client.get("/v1/dashboard").json()
    assert after["findings"]["nodules_per_scan"] == [1, 1]
    assert after["jobs"]["by_state"]["succeeded"] == 3


def test_only_the_days_that_were_asked_for_count(here: World, client: TestClient) -> None:
    here.submit(b"one")
    old = here.submit(b"three")
    here.work()
    with here.jobs.database.transaction() as connection:
        then = here.jobs.database.now(connection) - 10 * DAY_S
        connection.execute(sa.update(jobs).where(jobs.c.id == old).values(finished_at=then))
        connection.execute(sa.update(job_findings).where(job_findings.c.job_id == old).values(at=then))
    week, month = (client.get("/v1/dashboard", params={"days": days}).json() for days in (7, 30))
    assert [sum(day["succeeded"] for day in told["jobs"]["per_day"]) for told in (week, month)] == [1, 2]
    assert [told["findings"]["nodules_per_scan"] for told in (week, month)] == [[0, 1], [0, 1, 0, 1]]
    assert month["jobs"]["per_day"][-11]["succeeded"] == 1


def test_an_empty_installation_has_a_dashboard(client: TestClient) -> None:
    told = client.get("/v1/dashboard").json()
    assert told["findings"]["nodules_per_scan"] == []
    assert told["stages_s"] == told["refusals"] == {}
    assert set(told["findings"]["diameter_mm_histogram"]["counts"]) == {0}


@pytest.mark.parametrize("days", ["0", "-1", "367", "1e9", "x"])
def test_hostile_days(client: TestClient, days: str) -> None:
    assert refused(client.get("/v1/dashboard", params={"days": days})) == (422, "invalid_request")
