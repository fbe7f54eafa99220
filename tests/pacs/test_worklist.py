"""A UPS worklist is performed: claimed, fetched, analysed, stored, completed; whoever is killed, and whenever."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
import sqlalchemy as sa
from pydantic import ValidationError
from pydicom.dataset import Dataset

from app.imaging.dicom_headers import pydicom_silenced
from app.jobs.records import State
from app.jobs.rows import Who
from app.jobs.tables import pacs_workitems
from app.pacs.cancel_requests import CancelRequests
from app.pacs.config import PacsConfig
from app.pacs.errors import PacsTroubleError
from app.pacs.event_channel import EventChannel
from app.pacs.worklist import Performer
from tests.pacs.event_server import CLOSE, event_server
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, pacs_toml, running_orthanc, storescu, until
from tests.pacs.pacs_worlds import PacsWorld, pacs_world, write_series
from tests.pacs.test_orthanc import service
from tests.pacs.ups_server import UpsServer, running_ups


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as made:
        yield made


@pytest.fixture
def ups() -> Iterator[UpsServer]:
    with running_ups() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, orthanc: Orthanc, ups: UpsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PacsWorld]:
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    with pacs_world(tmp_path, chosen=configuration(orthanc, ups)) as made:
        yield made


def configuration(orthanc: Orthanc, ups: UpsServer, **changes: Any) -> PacsConfig:
    login = {"user": USER, "secret_env": "ORTHANC_PASSWORD"}
    archive = {"kind": "dicomweb", "url": f"{orthanc.url}/dicom-web", "login": login}
    worklist = {"url": ups.url, "station": "AI1", "input": "archive", "output": "archive", "kinds": ["sc"], **changes}
    return PacsConfig.model_validate({"targets": {"archive": archive}, "worklist": {"main": worklist}})


def sent(orthanc: Orthanc, folder: Path, patient: str) -> list[Dataset]:
    """A series in the archive; the header of its first instance."""
    paths = write_series(folder, patient=patient)
    assert storescu(orthanc.dicom_port, paths) == 0
    return [pydicom.dcmread(paths[0], stop_before_pixels=True)]


def performer(world: PacsWorld) -> Performer:
    (made,) = world.pacs.performers
    return made


def go_on(world: PacsWorld, *, search: bool = True) -> None:
    """As after a while: everything is due; then analyse, send, and look once more."""
    if search:
        performer(world).search()
    make_due(world)
    performer(world).go_on()
    world.here.work()
    world.pacs.returns.send_due("archive")
    make_due(world)
    performer(world).go_on()


def make_due(world: PacsWorld) -> None:
    with world.here.jobs.database.transaction() as connection:
        connection.execute(sa.update(pacs_workitems).where(pacs_workitems.c.next_at.is_not(None)).values(next_at=0.0))


def rows(world: PacsWorld) -> list[dict[str, Any]]:
    with world.here.jobs.database.reading() as connection:
        return [dict(row) for row in connection.execute(sa.select(pacs_workitems)).mappings()]


def test_a_scheduled_workitem_is_performed(world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path) -> None:
    series = sent(orthanc, tmp_path / "ct", "UPS^ONE")
    uid = ups.add(series)
    ignored = [ups.add(series, station="OTHER"), ups.add(series, ready="UNREADY")]
    go_on(world)
    assert ups.state(uid) == "COMPLETED"
    assert [ups.state(each) for each in ignored] == ["SCHEDULED", "SCHEDULED"]
    (job,) = world.jobs()
    assert job.state is State.SUCCEEDED
    (made,) = ups.item(uid).UnifiedProcedureStepPerformedProcedureSequence
    (output,) = made.OutputInformationSequence
    assert made.PerformedStationNameCodeSequence[0].CodeValue == "LUNGNODULE"
    url = output.WADORSRetrievalSequence[0].RetrieveURL
    found = requests.get(f"{url}/metadata", auth=(USER, PASSWORD), timeout=30).json()
    assert found[0]["00080018"]["Value"] == [output.ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
    (told,) = ups.item(uid).ProcedureStepProgressInformationSequence
    assert told.ProcedureStepProgress == 100
    assert ups.changes() == ["IN PROGRESS", "COMPLETED"]
    assert rows(world)[0]["state"] == "done"


def test_what_another_has_taken_is_left_to_him(
    world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path
) -> None:
    uid = ups.add(sent(orthanc, tmp_path / "ct", "UPS^TWO"))
    performer(world).search()
    ups.take_by_another(uid)
    go_on(world)
    assert rows(world)[0]["state"] == "lost"
    assert world.jobs() == []
    assert ups.state(uid) == "IN PROGRESS"


@pytest.mark.parametrize("state", ["IN PROGRESS", "COMPLETED"])
def test_an_answer_that_is_lost_is_found_out(
    world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path, state: str
) -> None:
    uid = ups.add(sent(orthanc, tmp_path / "ct", f"UPS^LOST{state[:2]}"))
    ups.deaf_after = {state}
    go_on(world)
    go_on(world)
    assert ups.state(uid) == "COMPLETED"
    assert rows(world)[0]["state"] == "done"
    assert len(world.jobs()) == 1
    assert ups.changes() == ["IN PROGRESS", "COMPLETED"]


def test_input_that_is_not_there_ends_the_workitem_with_a_reason(
    world: PacsWorld, ups: UpsServer, tmp_path: Path
) -> None:
    absent = pydicom.dcmread(write_series(tmp_path / "ct", patient="UPS^ABSENT")[0], stop_before_pixels=True)
    uid = ups.add([absent])
    go_on(world)
    assert ups.state(uid) == "CANCELED"
    (told,) = ups.item(uid).ProcedureStepProgressInformationSequence
    assert told.ReasonForCancellation == "lungnodule: pacs_http_404"
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110523"
    assert world.jobs() == []


def test_a_workitem_without_input_is_given_up(world: PacsWorld, ups: UpsServer) -> None:
    uid = ups.add([])
    go_on(world)
    assert (ups.state(uid), rows(world)[0]["last_answer"]) == ("CANCELED", "input_missing")


def test_a_job_that_cannot_be_done_ends_the_workitem(
    world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path
) -> None:
    uid = ups.add(sent(orthanc, tmp_path / "ct", "UPS^CANCEL"))
    performer(world).search()
    performer(world).go_on()
    (job,) = world.jobs()
    world.here.jobs.ledger.cancel(job.id, Who("anna"))
    go_on(world)
    assert (ups.state(uid), rows(world)[0]["state"]) == ("CANCELED", "given_up")


def test_a_request_to_cancel_ends_job_and_workitem(
    world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path
) -> None:
    uid = ups.add(sent(orthanc, tmp_path / "ct", "UPS^ASKED"))
    performer(world).search()
    performer(world).go_on()
    performer(world).cancel(uid)
    performer(world).go_on()
    (job,) = world.jobs()
    assert (job.state, ups.state(uid)) == (State.CANCELLED, "CANCELED")
    (told,) = ups.item(uid).ProcedureStepProgressInformationSequence
    assert told.ReasonForCancellation == "lungnodule: cancel_requested"


def test_a_request_to_cancel_comes_as_an_event(
    tmp_path: Path, orthanc: Orthanc, ups: UpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    monkeypatch.setenv("UPS_TOKEN", "geheim")
    uid = ups.add(sent(orthanc, tmp_path / "ct", "UPS^EVENT"))
    with event_server() as events:
        login = {"secret_env": "UPS_TOKEN"}
        chosen = configuration(orthanc, ups, events_url=events.url, subscriber="ME", login=login)
        with pacs_world(tmp_path, chosen=chosen) as world, closing(CancelRequests(performer(world))) as requests_:
            performer(world).search()
            performer(world).go_on()
            assert ("subscribe ME", uid, 201) in ups.asked
            requests_.round()
            assert "Authorization: Bearer geheim" in events.requests[0]
            events.tell(uid, 3)  # of progress
            events.tell("1.2.3", 2)  # of another
            events.tell(uid, 2)
            for _ in range(3):
                requests_.round()
            assert events.pong() == b"there?"
            performer(world).go_on()
            (job,) = world.jobs()
            assert (job.state, ups.state(uid)) == (State.CANCELLED, "CANCELED")
            events.frame(CLOSE, b"")
            with pytest.raises(PacsTroubleError):
                requests_.round()
            requests_.round()  # opens another
            assert len(events.requests) == 2


def test_what_is_no_event_channel_is_refused() -> None:
    with event_server() as events:
        events.answers_wrongly = True
        with pytest.raises(PacsTroubleError) as refusal:
            EventChannel(events.url, None, 5, allow_private=True)
        assert refusal.value.code == "pacs_answer_invalid"
        events.answers_wrongly = False
        with closing(EventChannel(events.url, None, 5, allow_private=True)) as channel:
            events.frame(1, b"x" * 7000)
            events.frame(1, b"short")
            assert [channel.receive(5), channel.receive(5), channel.receive(0.01)] == ["x" * 7000, "short", None]
    with pytest.raises(PacsTroubleError) as refusal:
        EventChannel(events.url, None, 5, allow_private=True)
    assert refusal.value.code == "pacs_unreachable"


@pytest.mark.parametrize("allowed", [True, False])
def test_the_event_channel_of_a_private_address_is_opened_only_where_the_worklist_allows_it(
    tmp_path: Path, orthanc: Orthanc, ups: UpsServer, monkeypatch: pytest.MonkeyPatch, *, allowed: bool
) -> None:
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    with event_server() as events:
        chosen = configuration(orthanc, ups, events_url=events.url, allow_private=allowed)
        with pacs_world(tmp_path, chosen=chosen) as world, closing(CancelRequests(performer(world))) as requests_:
            with nullcontext() if allowed else pytest.raises(PacsTroubleError) as refusal:
                requests_.round()
            assert len(events.requests) == int(allowed)
            if refusal is not None:
                assert refusal.value.code == "pacs_unreachable"


def test_a_workitem_that_was_taken_from_us_ends_the_job(
    world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path
) -> None:
    uid = ups.add(sent(orthanc, tmp_path / "ct", "UPS^TAKEN"))
    performer(world).search()
    performer(world).go_on()
    ups.workitems[uid]["00741000"]["Value"] = ["CANCELED"]
    make_due(world)
    performer(world).go_on()
    (job,) = world.jobs()
    assert (job.state, rows(world)[0]["state"]) == (State.CANCELLED, "lost")


def test_a_server_that_is_away_is_waited_for(
    world: PacsWorld, orthanc: Orthanc, ups: UpsServer, tmp_path: Path
) -> None:
    uid = ups.add(sent(orthanc, tmp_path / "ct", "UPS^AWAY"))
    performer(world).search()
    performer(world).go_on()
    ups.down = True
    with pytest.raises(PacsTroubleError):
        performer(world).search()
    go_on(world, search=False)
    go_on(world, search=False)
    assert rows(world)[0]["last_answer"] == "pacs_http_503"
    ups.down = False
    go_on(world)
    assert ups.state(uid) == "COMPLETED"
    assert ups.changes() == ["IN PROGRESS", "COMPLETED"]


def test_input_is_deidentified_where_the_worklist_says_so(
    tmp_path: Path, orthanc: Orthanc, ups: UpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    series = sent(orthanc, tmp_path / "ct", "KANARIE^UPS")
    with pacs_world(tmp_path, chosen=configuration(orthanc, ups, deidentify={})) as world:
        uid = ups.add(series)
        go_on(world)
        assert ups.state(uid) == "COMPLETED"
        (job,) = world.jobs()
        traces = {
            path.parent.name
            for path in (tmp_path / "data").rglob("*")
            if path.is_file() and b"KANARIE" in path.read_bytes()
        }
        assert traces == {"identities"}
        with world.here.jobs.store.scan(job.scan_id) as files, pydicom_silenced():
            assert pydicom.dcmread(files[0].path).StudyInstanceUID != series[0].StudyInstanceUID


def test_a_worklist_needs_targets_that_are_there() -> None:
    worklist = {"url": "http://127.0.0.1:9", "input": "archive", "output": "archive"}
    with pytest.raises(ValidationError, match="worklist main names archive"):
        PacsConfig.model_validate({"worklist": {"main": worklist}})


def test_killed_at_every_step_nothing_is_done_twice_or_left(
    tmp_path: Path, orthanc: Orthanc, ups: UpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    series = sent(orthanc, tmp_path / "ct", "UPS^KILLED")
    uid, study = ups.add(series), str(series[0].StudyInstanceUID)
    path = tmp_path / "pacs.toml"
    more = f"""
[worklist.main]
url = "{ups.url}"
every_s = 0.2
input = "archive"
output = "archive"
kinds = ["sc"]
"""
    path.write_text(pacs_toml(orthanc, min_instances=1000, kinds=["sc"], more=more))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/hold").touch()
    with service(tmp_path, path) as ours:
        until(lambda: ups.state(uid) == "IN PROGRESS", "it is claimed")
        ours.kill()
    with service(tmp_path, path) as ours:
        until(ours.jobs, "its job is made")
        ours.kill()
    (tmp_path / "data/hold").unlink()
    with service(tmp_path, path) as ours:
        until(lambda: orthanc.modalities_of(study) == ["CT", "OT"], "the result is stored")
        ours.kill()
    with service(tmp_path, path) as ours:
        until(lambda: ups.state(uid) == "COMPLETED", "it is completed")
        assert len(ours.jobs()) == 1
    with closing(sqlite3.connect(tmp_path / "data/jobs.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM pacs_workitems").fetchone() == (1,)
    assert ups.changes() == ["IN PROGRESS", "COMPLETED"]
    assert orthanc.modalities_of(study) == ["CT", "OT"]
