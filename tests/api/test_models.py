"""Models over HTTP: what there is, what is in force, and putting another in force, with real (tiny) models."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from app.api.job_work import order_analysis, priors_of
from app.imaging.errors import ModelError, OptionError
from app.jobs.records import DatabaseUnavailable, Order
from app.jobs.tables import audit
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder
from tests.jobs.installations import HandQueue
from tests.tiny_model import write_tiny_model

SCAN = {"files": ("a.dcm", b"scan")}
Open = Callable[..., TestClient]


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("two_versions")
    write_tiny_model(store, version="1.0.0")
    points = {"strict": {"threshold": 0.9, "description": "Few."}}
    write_tiny_model(store, version="1.1.0", changes={"operating_points": points, "default_operating_point": "strict"})
    return store


@pytest.fixture
def store(tmp_path: Path, two_versions: Path) -> Path:
    """A store of this test's own, so that it may be changed."""
    return Path(shutil.copytree(two_versions, tmp_path / "store"))


@pytest.fixture
def start(tmp_path: Path, store: Path, recorder: Recorder) -> Iterator[Open]:
    """``start(worker_concurrency=0)``: one more process, so to speak, on the same store and database."""
    with ExitStack() as running:

        def one_more(**changes: Any) -> TestClient:
            chosen = {"model_store": store, "models": ("tiny:1.0.0",), "data_dir": tmp_path / "data", **changes}
            settings = Settings(device="cpu", threads=1, min_free_disk_bytes=0, **chosen)
            app = create_app(settings, run=recorder, make_queue=lambda _: HandQueue())
            return running.enter_context(TestClient(app))

        yield one_more


def activate(client: TestClient, version: str, name: str = "tiny") -> Any:
    return client.post(f"/v1/models/{name}/{version}/activate")


def in_force(client: TestClient) -> str:
    return str(client.get("/v1/capabilities").json()["default_model"])


def states(client: TestClient) -> dict[str, str]:
    listed = client.get("/v1/models").json()
    return {one["version"]: one["state"] for one in (*listed["models"], *listed["invalid"])}


def in_memory(client: TestClient) -> list[str]:
    return [model.identity.version for model in client.app.state.service.models.registry.loaded()]


def damage(folder: Path) -> Path:
    network = folder / "characteriser.onnx"
    network.write_bytes(network.read_bytes() + b"x")
    return network


def test_a_model_is_put_in_force(start: Open, recorder: Recorder) -> None:
    client = start()
    assert states(client) == {"1.0.0": "active", "1.1.0": "available"}
    answer = activate(client, "1.1.0")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["previous"], answer.json()["model"]["state"]) == ("tiny:1.0.0", "active")
    assert states(client) == {"1.1.0": "active", "1.0.0": "loaded"}
    assert in_force(client) == "tiny:1.1.0"
    assert client.post("/v1/predict", files=SCAN).status_code == 200
    assert (recorder.model.identity.version, recorder.options.operating_point) == ("1.1.0", "strict")
    assert client.post("/v1/jobs", files=SCAN).json()["model"] == "tiny:1.1.0"


def test_what_the_service_says_of_itself_follows(start: Open) -> None:
    client = start()
    assert 'version="1.0.0"' in client.get("/metrics").text
    activate(client, "1.1.0")
    assert client.get("/readyz").json()["models"] == ["tiny:1.1.0", "tiny:1.0.0"]
    assert client.get("/readyz").json()["execution_provider"] == "CPUExecutionProvider"
    first, second = client.get("/v1/models").json()["models"]
    assert (first["version"], first["is_default"], second["is_default"]) == ("1.1.0", True, False)
    text = client.get("/metrics").text
    active = [line for line in text.splitlines() if line.startswith("lungnodule_active_model_info{")]
    assert [('version="1.1.0"' in line, line.endswith(" 1.0")) for line in active] == [(True, True)]
    assert text.count("lungnodule_model_info{") == 2


def test_it_survives_a_restart(start: Open) -> None:
    activate(start(), "1.1.0")
    after = start()
    assert in_force(after) == "tiny:1.1.0"
    assert in_memory(after) == ["1.1.0", "1.0.0"]


def test_every_process_of_the_database_follows(start: Open, recorder: Recorder) -> None:
    here, there, intake = start(), start(), start(worker_concurrency=0)
    activate(here, "1.1.0")
    for client in (there, intake):
        assert in_force(client) == "tiny:1.1.0"
        assert states(client)["1.1.0"] == "active"
        assert client.get("/readyz").json()["execution_provider"] == "none"  # not in that one's memory yet
    there.post("/v1/predict", files=SCAN)
    assert recorder.model.identity.version == "1.1.0"
    assert there.get("/readyz").json()["execution_provider"] == "CPUExecutionProvider"
    assert intake.post("/v1/jobs", files=SCAN).json()["model"] == "tiny:1.1.0"
    activate(intake, "1.0.0")
    assert in_force(here) == "tiny:1.0.0"


def test_a_folder_that_is_added_is_available_and_nobody_s_default(start: Open, store: Path, recorder: Recorder) -> None:
    client = start(models=("tiny",))
    assert in_force(client) == "tiny:1.1.0"
    write_tiny_model(store, version="2.0.0")
    assert states(client)["2.0.0"] == "available"
    for model, expected in ((None, "1.1.0"), ("tiny", "1.1.0"), ("tiny:2.0.0", "2.0.0")):
        client.post("/v1/predict", files=SCAN, data={"model": model} if model else {})
        assert recorder.model.identity.version == expected
    activate(client, "2.0.0")
    client.post("/v1/predict", files=SCAN, data={"model": "tiny"})
    assert recorder.model.identity.version == "2.0.0"


def test_a_damaged_folder_cannot_be_activated_and_the_file_is_named(start: Open, store: Path) -> None:
    client = start()
    network = damage(store / "tiny" / "1.1.0")
    answer = activate(client, "1.1.0")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "hash_mismatch")
    assert problem["type"].endswith("#activation_refused")
    assert problem["values"]["file"] == str(network)
    assert str(network) in problem["detail"]
    assert in_force(client) == "tiny:1.0.0"
    assert in_memory(client) == ["1.0.0"]
    assert states(client) == {"1.0.0": "active", "1.1.0": "invalid"}
    (invalid,) = client.get("/v1/models").json()["invalid"]
    assert (invalid["code"], str(network) in invalid["reason"]) == ("hash_mismatch", True)


@pytest.mark.parametrize("changes", [{"preprocessing_digest": "f" * 64}, {"characteriser.attribute_names": ["one"]}])
def test_a_model_that_cannot_be_loaded_is_not_put_in_force(start: Open, store: Path, changes: dict[str, Any]) -> None:
    """Every file is the one that the manifest means; only loading finds out."""
    client = start()
    write_tiny_model(store, version="3.0.0", changes=changes)
    assert activate(client, "3.0.0").status_code == 409
    assert in_force(client) == "tiny:1.0.0"


def test_a_broken_manifest_is_listed_and_refused(start: Open, store: Path) -> None:
    client = start()
    (store / "tiny" / "1.1.0" / "manifest.json").write_text("{")
    assert states(client)["1.1.0"] == "invalid"
    answer = activate(client, "1.1.0")
    assert (answer.status_code, answer.json()["code"]) == (409, "manifest_invalid")
    assert client.get("/v1/models/tiny/1.1.0").status_code == 503


def test_what_is_not_there_is_answered_with_what_is(start: Open) -> None:
    client = start()
    for name, version in (("tiny", "9.9.9"), ("other", "1.0.0"), ("..", "1.0.0"), ("tiny", "..")):
        answer = client.post(f"/v1/models/{name.replace('.', '%2e')}/{version.replace('..', '%2e%2e')}/activate")
        assert answer.status_code == 404
    assert activate(client, "9.9.9").json()["values"]["available"] == ["tiny/1.0.0", "tiny/1.1.0"]


def test_nothing_changes_when_the_choice_cannot_be_written(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start()

    def refuse(*_: Any) -> None:
        raise DatabaseUnavailable("No.")

    with monkeypatch.context() as broken:
        broken.setattr("app.jobs.activation.Activations.activate", refuse)
        assert activate(client, "1.1.0").status_code == 503
    assert in_force(client) == "tiny:1.0.0"


def test_predict_goes_on_with_the_last_choice_while_the_database_is_away(
    start: Open, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    activate(client, "1.1.0")

    def refuse(*_: Any) -> None:
        raise DatabaseUnavailable("No.")

    client.get("/readyz")
    monkeypatch.setattr("app.jobs.activation.Activations.active", refuse)
    assert client.post("/v1/predict", files=SCAN).status_code == 200
    assert recorder.model.identity.version == "1.1.0"


def test_it_is_in_the_audit_trail(start: Open) -> None:
    client = start(actor_header="X-User")
    client.post("/v1/models/tiny/1.1.0/activate", headers={"X-User": "anna"})
    with client.app.state.desk.jobs.database.reading() as connection:
        (row,) = connection.execute(sa.select(audit).where(audit.c.action == "model.activate")).mappings()
    assert (row["actor"], row["values"]["model"]["version"], row["values"]["previous"]) == ("anna", "1.1.0", None)


def test_while_it_stops_nothing_is_activated(start: Open) -> None:
    client = start()
    client.app.state.desk.draining.set()
    assert activate(client, "1.1.0").status_code == 503


def test_the_same_key_is_the_same_job_though_another_model_is_in_force(start: Open) -> None:
    client = start()
    key = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/jobs", files=SCAN, headers=key).json()
    activate(client, "1.1.0")
    again = client.post("/v1/jobs", files=SCAN, headers=key)
    assert (again.status_code, again.json()["id"], again.json()["model"]) == (202, first["id"], "tiny:1.0.0")
    named = client.post("/v1/jobs", files=SCAN, headers=key, data={"model": "tiny:1.0.0"})
    assert (named.status_code, named.json()["code"]) == (422, "idempotency_key_reused")


def test_a_job_is_never_done_by_another_model_of_the_same_name(start: Open, store: Path, tmp_path: Path) -> None:
    """Another hash ends it; a folder that is missing may be on another worker, or come back."""
    client = start(max_loaded_models=1)
    models, settings = client.app.state.service.models, client.app.state.service.settings
    analyse = order_analysis(settings, models.registry, tmp_path, Recorder(), priors_of(client.app.state.desk.jobs))
    sha256 = models.registry.find("tiny", "1.1.0").identity.sha256
    order = Order(model="tiny:1.1.0", model_sha256=sha256, operating_point="strict")
    analyse([], order, print)
    activate(client, "1.0.0")
    with pytest.raises(OptionError) as changed:
        analyse([], replace(order, model_sha256="0" * 64), print)
    assert changed.value.code == "model_changed"
    shutil.rmtree(store / "tiny" / "1.1.0")
    with pytest.raises(ModelError) as gone:
        analyse([], order, print)
    assert gone.value.code == "model_unknown"


def test_memory_holds_no_more_models_than_it_may(start: Open, store: Path) -> None:
    write_tiny_model(store, version="2.0.0")
    client = start(max_loaded_models=1)
    for version in ("1.1.0", "2.0.0", "1.0.0"):
        activate(client, version)
        assert in_memory(client) == [version]


def test_an_analysis_keeps_its_model(start: Open, recorder: Recorder) -> None:
    """Another is put in force while it runs, in a process that has room for one."""
    client = start(max_loaded_models=1)
    seen = []

    def during(_on_progress: Any) -> None:
        seen.append(activate(client, "1.1.0").status_code)
        seen.append(recorder.model is client.app.state.service.models.registry.loaded_as(recorder.model.identity))

    recorder.during = during
    assert client.post("/v1/predict", files=SCAN).status_code == 200
    assert (seen, recorder.model.identity.version) == ([200, True], "1.0.0")
    recorder.during = lambda _on_progress: None
    assert client.post("/v1/predict", files=SCAN).status_code == 200
    assert (recorder.model.identity.version, in_memory(client)) == ("1.1.0", ["1.1.0"])


def test_who_only_takes_jobs_in_needs_manifests_alone(start: Open, store: Path) -> None:
    for folder in (store / "tiny").iterdir():
        for network in folder.glob("*.onnx"):
            network.unlink()
    client = start(worker_concurrency=0, require_gpu=True)
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/jobs", files=SCAN, data={"operating_point": "sensitive"}).status_code == 202
    refused = client.post("/v1/jobs", files=SCAN, data={"operating_point": "strict"})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_operating_point")
    predicted = client.post("/v1/predict", files=SCAN)
    assert (predicted.status_code, predicted.json()["code"]) == (501, "intake_only")
    assert activate(client, "1.1.0").json()["code"] == "file_missing"
    assert in_memory(client) == []


def test_who_only_takes_jobs_in_keeps_nothing_of_what_it_activates(start: Open) -> None:
    client = start(worker_concurrency=0, require_gpu=True)
    assert activate(client, "1.1.0").status_code == 200
    assert in_memory(client) == []


def test_an_active_model_that_is_gone_is_no_silent_fall_back(start: Open, store: Path) -> None:
    client, intake = start(), start(worker_concurrency=0)
    activate(client, "1.1.0")
    shutil.rmtree(store / "tiny" / "1.1.0")
    assert client.post("/v1/predict", files=SCAN).status_code == 200  # it is in memory
    for answer in (intake.get("/readyz"), intake.post("/v1/jobs", files=SCAN)):
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unknown")
    assert intake.get("/metrics").status_code == 200
    with pytest.raises(ModelError):
        start()
