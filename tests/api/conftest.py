"""A service that runs on stand-ins, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.inference.model_store import LoadedModel
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder, Serve, make_model, shelved


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """Where the service keeps uploads while it works on them; empty whenever it does not."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def serve(recorder: Recorder, uploads: Path) -> Iterator[Serve]:
    """``serve(max_files=3)`` starts a service with these settings and gives its client."""
    running: list[TestClient] = []

    def start(models: tuple[LoadedModel, ...] | None = None, **settings: Any) -> TestClient:
        chosen = Settings(**{"temp_dir": uploads, "min_free_disk_bytes": 0, **settings})
        root_path = chosen.root_path
        loaded = models or (make_model(), make_model("other", "2.0.0"))
        client = TestClient(create_app(chosen, load=lambda _: shelved(*loaded), run=recorder), root_path=root_path)
        running.append(client.__enter__())
        return client

    yield start
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()
