"""What the README promises, each once, through the doors that a user has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from socket import socket

import numpy as np
import pytest

from app.cli.client import RequestRefused, RunningService, multipart, predict, running_service
from app.cli.exits import ExitCode
from app.imaging.volume import CtVolume
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec

ROOT = Path(__file__).resolve().parents[2]


def lungnodule(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def volume() -> CtVolume:
    nodules = [NoduleSpec(diameter_mm=16.0)]
    return phantom_ct(shape_zyx=(80, 96, 96), spacing_zyx_mm=(4.0, 4.0, 4.0), nodules=nodules, noise_hu=5.0).volume


@pytest.fixture(scope="module")
def series(volume, tmp_path_factory) -> list[Path]:
    return write_dicom_series(volume, tmp_path_factory.mktemp("series"))


def test_demo_finds_the_phantoms_nodules(shipped_store):
    done = lungnodule("demo")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodules"]


def test_doctor_finds_the_repository_sound(shipped_store):
    done = lungnodule("doctor")
    assert done.returncode == 0, done.stdout


def test_the_command_line_and_the_service_give_the_same_answer(tiny_service, tiny_settings, series):
    by_http = predict(tiny_service, series)
    by_command = json.loads(lungnodule("analyse", series[0].parent, "--json", env=tiny_settings).stdout)
    assert by_http["nodules"]
    assert by_http.keys() == by_command.keys()
    differing = {key for key in by_http if by_http[key] != by_command[key]}
    assert differing <= {"timings_s", "threads"}


def test_table_files_and_exit_code_of_an_analysis(tiny_settings, series, tmp_path):
    done = lungnodule("analyse", series[0].parent, "--output", tmp_path / "findings", env=tiny_settings)
    assert done.returncode == 0
    assert "Not for diagnosis" in done.stdout
    assert done.stderr == ""
    result = json.loads((tmp_path / "findings/result.json").read_text())
    rows = (tmp_path / "findings/nodules.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [nodule["id"] for nodule in result["nodules"]]


def test_a_terminal_sees_the_progress_and_a_pipe_does_not(tiny_settings, series):
    terminal, stderr = os.openpty()
    command = [sys.executable, "-m", "app.cli", "analyse", str(series[0].parent), "--json"]
    done = subprocess.run(
        command, env=tiny_settings | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=stderr, check=True
    )
    os.close(stderr)
    assert b"Detecting" in os.read(terminal, 1 << 20)
    os.close(terminal)
    assert json.loads(done.stdout)["nodules"]


def test_a_missing_slice_is_refused_by_both_with_the_same_code(tiny_service, tiny_settings, series):
    holed = series[:30] + series[31:]
    with pytest.raises(RequestRefused) as refused:
        predict(tiny_service, holed)
    done = lungnodule("analyse", *holed, env=tiny_settings)
    assert done.returncode == ExitCode.SCAN
    assert done.stdout == ""
    assert done.stderr.startswith(f"error[{refused.value.code}]: ")
    assert done.stderr.count("\n") == 1


def test_two_series_that_both_fit_are_refused_until_one_is_named(tiny_service, volume, series, tmp_path):
    other = CtVolume(np.flip(volume.hu, axis=2).copy(), volume.grid)
    both = [*series, *write_dicom_series(other, tmp_path)]
    with pytest.raises(RequestRefused, match="series"):
        predict(tiny_service, both)
    wanted = predict(tiny_service, series)["series"]["series_instance_uid"]
    assert predict(tiny_service, both, {"series_uid": wanted})["series"]["series_instance_uid"] == wanted


def test_no_patient_attribute_reaches_the_answer_or_the_terminal(tiny_settings, volume, tmp_path):
    def name_the_patient(dataset, _z):
        dataset.PatientName = "Doe^Jane"
        dataset.PatientID = "MRN4711"
        dataset.StudyDescription = "Doe Jane MRN4711"

    write_dicom_series(volume, tmp_path / "Doe", edit=name_the_patient)
    done = lungnodule("analyse", tmp_path / "Doe", "--json", env=tiny_settings)
    assert done.returncode == 0
    for secret in ("Jane", "MRN4711"):
        assert secret not in done.stdout + done.stderr


def test_the_service_without_a_model_refuses_to_start_and_says_why(tmp_path):
    with (
        pytest.raises(RequestRefused, match="store_missing"),
        running_service({"LUNGNODULE_MODEL_STORE": str(tmp_path / "x")}),
    ):
        pass


def test_exit_code_of_a_service_without_a_model(tiny_settings, tmp_path):
    done = lungnodule("serve", "--port", 0, env=tiny_settings | {"LUNGNODULE_MODEL_STORE": str(tmp_path / "absent")})
    assert done.returncode == ExitCode.MODEL


def test_exit_code_of_a_port_that_is_taken(tiny_settings):
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = lungnodule("serve", "--port", taken.getsockname()[1], env=tiny_settings)
    assert done.returncode == ExitCode.SYSTEM
    assert "cannot_listen" in done.stderr


def places_taken(service: RunningService) -> int:
    with urllib.request.urlopen(f"{service.url}/readyz", timeout=10) as answer:
        return json.load(answer)["places_taken"]


def test_sigterm_lets_an_accepted_upload_finish_and_takes_no_other(tiny_environment, series):
    headers, body = multipart(series)
    pieces = list(body)
    with running_service(tiny_environment) as service:
        connection = HTTPConnection(service.url.removeprefix("http://"), timeout=120)
        connection.putrequest("POST", "/v1/predict")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(b"".join(pieces[:20]))
        while places_taken(service) == 0:
            pass
        service.process.send_signal(signal.SIGTERM)
        with suppress(urllib.error.URLError, ConnectionError):
            while True:
                places_taken(service)
        connection.send(b"".join(pieces[20:]))
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.load(answer)["nodules"]
        connection.close()
        assert service.process.wait(timeout=60) == 0
