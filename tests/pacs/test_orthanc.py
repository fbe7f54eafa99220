"""With a real Orthanc and DCMTK: what a scanner sends is analysed, nobody calls us, and results lie beside it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.cli import command_line
from app.main import create_app
from app.pacs.config import DimseTarget, Login, WebTarget
from app.pacs.dicomweb import WebDestination
from app.pacs.dimse import DimseDestination
from app.pacs.errors import PacsTroubleError
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.settings import Settings
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, free_port, pacs_toml, running_orthanc, storescu, until
from tests.pacs.pacs_worlds import capture, study_of, write_series
from tests.pacs.service_process import captures_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as made:
        yield made


@pytest.fixture
def configured(tmp_path: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of docs/pacs.md, for this Orthanc."""
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    path = tmp_path / "pacs.toml"
    path.write_text(pacs_toml(orthanc, min_instances=3, kinds=["sc", "seg"]))
    return path


@dataclass
class Running:
    """Our service in a process."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def jobs(self) -> list[dict[str, Any]]:
        return list(requests.get(f"{self.url}/v1/jobs", timeout=30).json()["jobs"])

    def returns(self, job_id: str) -> list[dict[str, Any]]:
        return list(requests.get(f"{self.url}/v1/jobs/{job_id}/pacs", timeout=30).json()["returns"])


@contextmanager
def service(folder: Path, configured: Path) -> Iterator[Running]:
    port = free_port()
    environment = os.environ | {
        "LUNGNODULE_DATA_DIR": str(folder / "data"), "LUNGNODULE_PACS_CONFIG": str(configured),
        "LUNGNODULE_WORKER_LEASE_S": "2",
    }  # fmt: skip
    with (folder / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pacs.service_process", str(port)],
            cwd=ROOT, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    running = Running(process, f"http://127.0.0.1:{port}")

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "service.log").read_text()[-3000:]
        try:
            return requests.get(f"{running.url}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    try:
        until(is_ready, "the service is ready")
        yield running
    finally:
        process.terminate()
        process.wait()


def cursor(folder: Path) -> int:
    """How far our service has read Orthanc's log; -1 before it has begun."""
    with closing(sqlite3.connect(folder / "data/jobs.sqlite")) as database:
        row = database.execute("SELECT seq FROM pacs_cursors").fetchone()
    return -1 if row is None else int(row[0])


def test_what_a_scanner_sends_comes_back_beside_it_and_is_not_analysed_again(
    tmp_path: Path, orthanc: Orthanc, configured: Path
) -> None:
    paths = write_series(tmp_path / "ct", patient="ONE")
    study = study_of(paths[0])
    with service(tmp_path, configured) as ours:
        until(lambda: cursor(tmp_path) >= 0, "the log is followed")
        assert storescu(orthanc.dicom_port, paths) == 0
        until(lambda: orthanc.modalities_of(study) == ["CT", "OT", "OT"], "results are beside the images")
        (job,) = ours.jobs()
        (sent,) = until(
            lambda: [each for each in ours.returns(job["id"]) if each["state"] == "sent"], "the service knows"
        )
        assert (sent["objects_confirmed"], sent["last_answer"], sent["tries"]) == (2, "stored", 1)
        assert 'lungnodule_pacs_waiting{target="archive"} 0.0' in requests.get(f"{ours.url}/metrics", timeout=30).text
        # Our own results have become stable, and have been looked at.
        stable = until(lambda: stable_series(orthanc, study, 3), "Orthanc says that our results are stable")
        until(lambda: cursor(tmp_path) >= max(stable), "they are read of")
        with closing(sqlite3.connect(tmp_path / "data/jobs.sqlite")) as database:
            until(
                lambda: (
                    database.execute("SELECT count(*) FROM pacs_fetches WHERE next_at IS NOT NULL").fetchone() == (0,)
                ),
                "they are dealt with",
            )
            answers = database.execute("SELECT last_answer FROM pacs_fetches").fetchall()
        assert sorted(answers) == [("fetched",), ("not_wanted",), ("not_wanted",)]
        assert len(ours.jobs()) == 1


def stable_series(orthanc: Orthanc, study_uid: str, count: int) -> list[int]:
    """Numbers of the events that say so, once there is one for each series of the study."""
    (study,) = requests.post(f"{orthanc.url}/tools/lookup", data=study_uid, auth=(USER, PASSWORD), timeout=30).json()
    series = set(orthanc.get(f"/studies/{study['ID']}")["Series"])
    found = {
        change["ID"]: change["Seq"]
        for change in orthanc.get("/changes?limit=100000")["Changes"]
        if change["ChangeType"] == "StableSeries" and change["ID"] in series
    }
    return list(found.values()) if len(found) == count else []


def test_both_sides_stopped_in_mid_flow_lose_nothing_and_store_nothing_twice(
    tmp_path: Path, orthanc: Orthanc, configured: Path
) -> None:
    paths = write_series(tmp_path / "a", patient="TWO"), write_series(tmp_path / "b", patient="TWO", number=2)
    study = study_of(paths[0][0])
    (tmp_path / "data").mkdir()
    hold = tmp_path / "data/hold"
    hold.touch()
    with service(tmp_path, configured) as ours:
        until(lambda: cursor(tmp_path) >= 0, "the log is followed")
        assert storescu(orthanc.dicom_port, paths[0]) == 0
        until(lambda: [job for job in ours.jobs() if job["state"] == "running"], "the first is being analysed")
        ours.kill()
    # While we are away the second series comes.
    assert storescu(orthanc.dicom_port, paths[1]) == 0
    until(lambda: stable_series(orthanc, study, 2), "it is stable")
    with service(tmp_path, configured) as ours:
        until(lambda: len(ours.jobs()) == 2, "both are known")
        orthanc.stop()
        hold.unlink()
        until(lambda: all(job["state"] == "succeeded" for job in ours.jobs()), "both are analysed")
        until(
            lambda: (
                all(each["tries"] for job in ours.jobs()[:1] for each in ours.returns(job["id"]))
                or any(each["tries"] for job in ours.jobs() for each in ours.returns(job["id"]))
            ),
            "sending was tried",
        )
        ours.kill()
    with service(tmp_path, configured) as ours:
        orthanc.start()
        until(lambda: orthanc.modalities_of(study) == ["CT", "CT", "OT", "OT", "OT", "OT"], "all are there")
        until(
            lambda: all(each["state"] == "sent" for job in ours.jobs() for each in ours.returns(job["id"])),
            "the service knows",
        )
        assert len(ours.jobs()) == 2
    counts = [
        len(orthanc.qido(f"/studies/{study}/series/{one['0020000E']['Value'][0]}/instances"))
        for one in orthanc.qido(f"/studies/{study}/series")
        if one["00080060"]["Value"] == ["OT"]
    ]
    assert counts == [1, 1, 1, 1]


def test_the_real_pipeline_from_scanner_to_archive(
    tmp_path: Path, orthanc: Orthanc, configured: Path, tiny_model_store: Path
) -> None:
    paths = write_dicom_series(phantom_ct(noise_hu=5.0, seed=3).volume, tmp_path / "ct")
    settings = Settings(
        data_dir=tmp_path / "data", pacs_config=configured, model_store=tiny_model_store, models=("tiny",),
        device="cpu", threads=1, drain_timeout_s=0,
    )  # fmt: skip
    with TestClient(create_app(settings, object_maker=captures_of, work=True)) as client:
        until(lambda: cursor(tmp_path) >= 0, "the log is followed")
        assert storescu(orthanc.dicom_port, paths) == 0
        until(lambda: "OT" in orthanc.modalities_of(study_of(paths[0])), "a result is beside the images")
        (job,) = client.get("/v1/jobs").json()["jobs"]
        result = client.get(job["links"]["result"]).json()
        assert result["nodules"]
        assert result["series"]["series_instance_uid"] == pydicom.dcmread(paths[0]).SeriesInstanceUID
        assert result["acceptance"]["files_received"] == len(paths)


def web(orthanc: Orthanc, **changes: Any) -> WebDestination:
    login = Login(user=USER, secret_env="ORTHANC_PASSWORD")
    return WebDestination(
        WebTarget.model_validate(
            {"kind": "dicomweb", "url": f"{orthanc.url}/dicom-web", "login": login, "timeout_s": 20, **changes}
        )
    )


def dimse(orthanc: Orthanc, **changes: Any) -> DimseDestination:
    told = {"kind": "dimse", "ae_title": "TESTPACS", "host": "127.0.0.1", "port": orthanc.dicom_port, "timeout_s": 20}
    return DimseDestination(DimseTarget.model_validate(told | changes))


@pytest.mark.parametrize("way", [web, dimse])
def test_an_archive_answers_and_stores_the_same_twice_as_one(way: Any, orthanc: Orthanc, configured: Path) -> None:
    destination, study = way(orthanc), f"2.25.{1000 + len(way.__name__)}"
    assert "answer" in destination.check()
    objects = [capture(way.__name__, kind, study) for kind in ("sr", "sc")]
    for _ in range(2):
        assert set(destination.send(objects).values()) == {"stored"}
    assert len(orthanc.qido(f"/studies/{study}/instances")) == 2
    series = str(objects[0].SeriesInstanceUID)
    assert [one["0020000D"]["Value"] for one in web(orthanc).series_of(study)] == [[study]] * 2
    assert web(orthanc).instances_of(study, series)[0].PixelData == objects[0].PixelData


def test_a_wrong_password_is_told_as_such(orthanc: Orthanc, configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHANC_PASSWORD", "wrong")
    with pytest.raises(PacsTroubleError) as told:
        web(orthanc).check()
    assert told.value.code == "pacs_denies_access"


@pytest.mark.parametrize("way", [web, dimse])
def test_an_archive_that_is_away_is_told_as_such(way: Any, orthanc: Orthanc, configured: Path) -> None:
    changes = {"url": f"http://127.0.0.1:{free_port()}/"} if way is web else {"port": free_port()}
    with pytest.raises(PacsTroubleError) as told:
        way(orthanc, **changes).check()
    assert told.value.code == "pacs_unreachable"


def test_check_says_of_each_pacs_whether_it_answers(orthanc: Orthanc, configured: Path) -> None:
    with configured.open("a") as file:
        file.write(
            f'[targets.ws]\nkind = "dimse"\nae_title = "TESTPACS"\nhost = "127.0.0.1"\nport = {orthanc.dicom_port}\n'
        )
    run = CliRunner().invoke(command_line(), ["pacs", "check", "--config", str(configured)])
    assert run.exit_code == 0, run.output
    assert [line.split(":")[0] for line in run.stdout.splitlines()] == [
        "ok      target archive", "ok      target ws", "ok      orthanc main", "1 rules; DIMSE provider off",
    ]  # fmt: skip


def test_check_fails_for_one_that_is_away_and_tells_of_the_others(configured: Path) -> None:
    configured.write_text(f'{configured.read_text()}[targets.away]\nkind = "dicomweb"\nurl = "http://127.0.0.1:9/"\n')
    run = CliRunner().invoke(command_line(), ["pacs", "check", "--config", str(configured)])
    assert run.exit_code == 1
    assert "failed  target away: The PACS does not answer" in run.output
    assert "ok      orthanc main" in run.output
    assert PASSWORD not in run.output
