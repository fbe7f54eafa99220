"""The page's modules from the page's own routes, without the rest of the service: a test says what is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from app.web.pages import add_workspace
from tests.served import served
from tests.web.views.worlds import SHOTS, answering


@pytest.fixture(scope="session", autouse=True)
def patience() -> None:
    """A busy machine draws slowly; nothing here is about how fast."""
    expect.set_options(timeout=30_000)


@pytest.fixture(scope="session")
def shell() -> Iterator[str]:
    """URL of the page, served with its policy and nothing below /v1."""
    app = FastAPI()
    add_workspace(app)
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def visit(page: Page, shell: str) -> Iterator[Callable[..., Page]]:
    """Opens a view on given answers; when the test is over, no other host was asked."""
    with ExitStack() as stack:
        asked: list[str] = []

        def open_view(view: str, given: dict[str, Any]) -> Page:
            nonlocal asked
            asked = stack.enter_context(answering(page, given))
            page.goto(f"{shell}/workspace/#/{view}")
            return page

        yield open_view
        assert [url for url in asked if not url.startswith((f"{shell}/", "data:", "blob:"))] == []


@pytest.fixture
def inspected(page: Page) -> Callable[[str], None]:
    """Axe finds nothing serious in dark and light; a screenshot of each is kept to be looked at."""

    def inspect(name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        for theme in ("dark", "light"):
            page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
            page.screenshot(path=SHOTS / f"{name}-{theme}.png", full_page=True)
            found = Axe().run(page, context="main").response["violations"]
            serious = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found if v["impact"] in ("serious", "critical")]
            assert serious == [], theme

    return inspect
