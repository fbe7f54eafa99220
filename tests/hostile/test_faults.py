"""Faults around the service: processes killed, no room, no database, no queue, no GPU, no model."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import requests
from onnx import external_data_helper

from tests.hostile.faults import FAULTS
from tests.hostile.series_files import good_nifti
from tests.hostile.site import ROOT, Site, site
from tests.jobs.postgres import Postgres, fresh_database
from tests.jobs.processes import Farm
from tests.tiny_model import sha256_of, write_tiny_model


def test_every_row_names_tests_that_are_there() -> None:
    assert [fault.row for fault in FAULTS] == [*range(42, 49), 54, 55]
    for fault in FAULTS:
        for test in fault.tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file()


def job_of(place: Site, number: int, folder: Path) -> str:
    (path,) = good_nifti(folder)
    data = bytearray(path.read_bytes())
    answer = requests.post(
        f"{place.url}/v1/jobs",
        files=[("files", (path.name, bytes(data))), ("files", (f"note{number}.txt", b"%d" % number))],
        timeout=60,
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_killed_with_the_real_analysis(tmp_path: Path, tiny_model_store: Path) -> None:
    with site(tmp_path, tiny_model_store, LUNGNODULE_WORKER_LEASE_S=3, LUNGNODULE_MAX_ATTEMPTS=20) as place:
        service = place.serve()
        jobs = [job_of(place, number, tmp_path / "scan") for number in range(2)]
        service.kill()
        service.wait()
        place.serve()
        jobs += [job_of(place, number, tmp_path / "scan") for number in range(2, 4)]

        def states() -> set[str]:
            return {requests.get(f"{place.url}/v1/jobs/{job}", timeout=60).json()["state"] for job in jobs}

        place.until(lambda: states() == {"succeeded"}, "every acknowledged job is answered")
        for job in jobs:
            events = requests.get(f"{place.url}/v1/jobs/{job}/events", timeout=60).text
            assert events.count("event: succeeded") == 1
        place.until(lambda: not place.leftovers(), "nothing of an upload is left", 20)


def test_a_locked_database_is_waited_for(stubs: Farm) -> None:
    """Someone holds SQLite's write lock for a while: the job is acknowledged late, and not lost."""
    stubs.serve()
    answers: list[requests.Response] = []
    with sqlite3.connect(stubs.data_dir / "jobs.sqlite", isolation_level=None) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        sender = threading.Thread(target=lambda: answers.append(stubs.post("ok 5")))
        sender.start()
        stubs.until(lambda: list(stubs.data_dir.rglob("000000")), "the upload is there, received or stored already")
        sender.join(0.5)
        assert not answers
        assert requests.get(f"{stubs.url}/healthz", timeout=60).ok
        intruder.execute("ROLLBACK")
    intruder.close()
    sender.join()
    assert answers[0].status_code == 202, answers[0].text
    stubs.assert_done_once(answers[0].json()["id"], 5)


@pytest.mark.parametrize("places", [0, 1])
def test_without_its_database_a_service_is_not_ready(stubs: Farm, postgres: Postgres, places: int) -> None:
    """Whether it only takes jobs in or works on them too: it can acknowledge none."""
    with fresh_database(postgres) as url:
        stubs.settings["LUNGNODULE_DATABASE_URL"] = url
        stubs.serve(LUNGNODULE_WORKER_CONCURRENCY=str(places))
        job_id = stubs.submit("ok 5")
        postgres.stop()
        answer = requests.get(f"{stubs.url}/readyz", timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert "Retry-After" in answer.headers
        assert requests.get(f"{stubs.url}/healthz", timeout=60).ok
        assert stubs.post("ok 6").json()["code"] == "database_unavailable"
        postgres.start()
        stubs.until(lambda: requests.get(f"{stubs.url}/readyz", timeout=60).ok, "it is ready again")
        if not places:
            stubs.worker()
        stubs.assert_done_once(job_id, 5)
        for process in stubs.running:
            process.send_signal(9)


def test_a_full_queue_says_so_and_forgets_nothing(stubs: Farm) -> None:
    stubs.serve(LUNGNODULE_WORKER_CONCURRENCY="0", LUNGNODULE_MAX_QUEUED="2")
    jobs = [stubs.submit(f"ok {number}") for number in (3, 4)]
    answer = stubs.post("ok 5")
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert "Retry-After" in answer.headers
    stubs.worker()
    for number, job_id in zip((3, 4), jobs, strict=True):
        stubs.assert_done_once(job_id, number)


NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "LUNGNODULE_DEVICE": "cuda"}


def test_the_cpu_instead_of_a_gpu_is_told_everywhere(tmp_path: Path, tiny_model_store: Path) -> None:
    with site(tmp_path, tiny_model_store, **NO_GPU) as place:
        place.serve()
        ready = requests.get(f"{place.url}/readyz", timeout=60).json()
        assert ready["execution_provider"] == "CPUExecutionProvider"
        assert any("GPU" in notice or "CUDA" in notice for notice in ready["notices"])
        result = json.loads(place.post("/v1/predict", good_nifti(tmp_path / "scan")).text)
        assert result["execution_provider"] == "CPUExecutionProvider"
        assert 'provider="CPUExecutionProvider"} 1.0' in place.get("/metrics").text


def refused_start(place: Site, **changes: str) -> tuple[int, str]:
    process = place.start("serve", "--port", str(place.port), **changes)
    code = process.wait(timeout=120)
    return code, place.log.read_text()


def test_no_start_without_the_gpu_that_is_required(tmp_path: Path, tiny_model_store: Path) -> None:
    with site(tmp_path, tiny_model_store, **NO_GPU, LUNGNODULE_REQUIRE_GPU=1) as place:
        code, said = refused_start(place)
        assert code == 4
        assert "gpu_required" in said


def truncated(folder: Path) -> None:
    path = folder / "detector.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def swapped(folder: Path) -> None:
    shutil.copy(folder / "characteriser.onnx", folder / "detector.onnx")


def weights_outside(folder: Path) -> None:
    """A network whose weights lie in ``../`` of its folder, with a manifest that agrees to it."""
    path = folder / "detector.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.raw_data:
            external_data_helper.set_external_data(tensor, location="../../weights.bin")
            (folder.parent.parent / "weights.bin").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["detector"]["sha256"] = sha256_of(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def file_outside(folder: Path) -> None:
    shutil.move(folder / "detector.onnx", folder.parent / "detector.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["detector"]["file"] = "../detector.onnx"
    (folder / "manifest.json").write_text(json.dumps(manifest))


SPOILED: dict[Callable[[Path], None], tuple[str, ...]] = {
    truncated: ("hash_mismatch", "detector.onnx"),
    swapped: ("hash_mismatch", "detector.onnx"),
    weights_outside: ("detector.onnx",),
    file_outside: ("manifest_invalid", "detector.file"),
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_model_that_is_not_what_it_says(tmp_path: Path, spoil: Any) -> None:
    folder = write_tiny_model(tmp_path / "store")
    spoil(folder)
    with site(tmp_path / "site", tmp_path / "store") as place:
        code, said = refused_start(place)
        assert code == 4, said
        for words in SPOILED[spoil]:
            assert words in said
        if spoil in (truncated, swapped):
            assert sha256_of(folder / "detector.onnx") in said
