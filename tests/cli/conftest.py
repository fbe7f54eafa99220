"""Runs the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import command_line

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(command_line(), [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def on_tiny_model(monkeypatch: pytest.MonkeyPatch, tiny_model_store: Path) -> None:
    """Settings under which commands use the tiny model."""
    monkeypatch.setenv("LUNGNODULE_MODEL_STORE", str(tiny_model_store))
    monkeypatch.setenv("LUNGNODULE_MODELS", "tiny")
    monkeypatch.setenv("LUNGNODULE_DEVICE", "cpu")
    monkeypatch.setenv("LUNGNODULE_THREADS", "1")
