"""A series that comes by STOW-RS belongs to the tenant of the key that it came with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.jobs.tables import pacs_series
from app.pacs.instances import read_instance
from tests.api.access.callers import Door, door
from tests.pacs.pacs_worlds import write_series
from tests.pacs.test_receiving import related


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Door]:
    with door(tmp_path, pacs=True, pacs_tenant="pacs") as made:
        made.key("anna", tenant="a")
        made.key("bert", tenant="b")
        made.key("archive", tenant="pacs")
        made.key("chief", ["operate"], tenant="ops")
        yield made


def store(here: Door, who: str, paths: list[Path]) -> None:
    sent = related([path.read_bytes() for path in paths])
    answer = here.client.post(
        "/dicom-web/studies", content=sent["content"], headers={**sent["headers"], **here.key(who)}
    )
    assert answer.status_code == 200, answer.text


def handed_over(here: Door) -> int:
    """Make the jobs of all that was stored, as if the quiet time had passed."""
    pacs = here.client.app.state.pacs  # type: ignore[attr-defined]
    with pacs.shelf.database.transaction() as connection:
        connection.execute(sa.update(pacs_series).where(pacs_series.c.job_id.is_(None)).values(due_at=0.0))
    return int(pacs.handover.hand_over_due())


def jobs_of(here: Door, who: str) -> set[str]:
    return {job["id"] for job in here.client.get("/v1/jobs", headers=here.key(who)).json()["jobs"]}


def test_each_sees_the_job_of_what_it_stored(here: Door, tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct", slices=20)
    for who in ("anna", "bert", "archive"):
        store(here, who, paths)
    assert handed_over(here) == 3
    own = [jobs_of(here, who) for who in ("anna", "bert", "archive")]
    assert [len(jobs) for jobs in own] == [1, 1, 1]
    assert len(set.union(*own)) == 3
    assert jobs_of(here, "chief") == set.union(*own)
    for others in own[1:]:
        assert here.client.get(f"/v1/jobs/{next(iter(others))}", headers=here.key("anna")).status_code == 404


def test_halves_of_two_tenants_make_no_whole(here: Door, tmp_path: Path) -> None:
    """Nobody's slices are analysed for somebody else."""
    paths = write_series(tmp_path / "ct", slices=40)
    store(here, "anna", paths[:20])
    store(here, "bert", paths[20:])
    assert handed_over(here) == 2
    pacs = here.client.app.state.pacs  # type: ignore[attr-defined]
    with pacs.shelf.database.reading() as connection:
        series = list(connection.execute(sa.select(pacs_series.c.id)).scalars())
    assert [len(pacs.shelf.files(one)) for one in series] == [20, 20]


def test_what_comes_again_makes_no_second_job(here: Door, tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct", slices=20)
    store(here, "anna", paths)
    assert handed_over(here) == 1
    store(here, "anna", paths)
    handed_over(here)
    assert len(jobs_of(here, "chief")) == 1


def test_a_key_of_the_pacs_tenant_and_other_ways_in_fill_one_series(here: Door, tmp_path: Path) -> None:
    """A PACS that sends by STOW-RS what it has begun by C-STORE."""
    paths = write_series(tmp_path / "ct", slices=40)
    pacs = here.client.app.state.pacs  # type: ignore[attr-defined]
    for number, path in enumerate(paths[:20]):
        copy = pacs.scratch / f"{number}"
        copy.write_bytes(path.read_bytes())
        pacs.shelf.put([pacs.shelf.taken(copy, read_instance(copy))])
    store(here, "archive", paths[20:])
    assert handed_over(here) == 1
    assert len(jobs_of(here, "archive")) == 1
