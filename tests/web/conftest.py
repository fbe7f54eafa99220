"""The workspace as a person meets it: the real service, and a real Chromium without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from app.cli.client import running_service

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""Without a GPU, WebGL is drawn by SwiftShader; root has no sandbox."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        reason = "Chromium is not here: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh tab in a fresh profile; what its scripts throw fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab = context.new_page()
    thrown: list[str] = []
    tab.on("pageerror", lambda error: thrown.append(str(error)))
    yield tab
    context.close()
    assert thrown == []


@pytest.fixture(scope="session")
def workspace_service(tiny_model_store: Path) -> Iterator[str]:
    """URL of a service on the tiny model."""
    own = {"MODEL_STORE": str(tiny_model_store), "MODELS": "tiny", "DEVICE": "cpu", "THREADS": "1"}
    with running_service({f"LUNGNODULE_{name}": value for name, value in own.items()}) as service:
        yield service.url
