"""The repository's own model, and the service on it as its users meet it: a process that listens on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.client import running_service
from app.inference.model_store import LoadedModel, find_model, list_models, load_model
from app.inference.network import SessionOptions

MODEL_STORE = Path(__file__).resolve().parents[2] / "model_store"


@pytest.fixture(scope="session")
def shipped_store() -> Path:
    if not list_models(MODEL_STORE):
        pytest.skip("model_store/ holds no model yet")
    return MODEL_STORE


@pytest.fixture(scope="session")
def shipped_model(shipped_store: Path) -> LoadedModel:
    return load_model(find_model(shipped_store, "lungnodule").path, SessionOptions(device="cpu"))


@pytest.fixture(scope="session")
def shipped_service(shipped_store: Path) -> Iterator[str]:
    """URL of the service with the repository's model."""
    with running_service({"LUNGNODULE_MODEL_STORE": str(shipped_store)}) as service:
        yield service.url


@pytest.fixture(scope="session")
def tiny_environment(tiny_model_store: Path) -> dict[str, str]:
    """Settings of a service on the tiny model, for what does not depend on how good the model is."""
    own = {"MODEL_STORE": str(tiny_model_store), "MODELS": "tiny", "DEVICE": "cpu", "THREADS": "1"}
    return {f"LUNGNODULE_{name}": value for name, value in own.items()}


@pytest.fixture(scope="session")
def tiny_service(tiny_environment: dict[str, str]) -> Iterator[str]:
    """URL of the service with the tiny model."""
    with running_service(tiny_environment) as service:
        yield service.url


@pytest.fixture
def tiny_settings(tiny_environment: dict[str, str]) -> dict[str, str]:
    """The whole environment of a command on the tiny model."""
    return os.environ | tiny_environment
