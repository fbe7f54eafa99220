"""The page is there, under a policy that lets nothing in from elsewhere."""

from __future__ import annotations

import re

from playwright.sync_api import Page

from app.web.pages import STATIC


def test_the_page_says_what_it_is_not_for_and_asks_nobody_else(page: Page, workspace_service: str):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(f"{workspace_service}/workspace/")
    assert answer is not None
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    page.wait_for_selector("#disclaimer:text('Not for diagnosis')")
    assert [url for url in asked if not url.startswith((f"{workspace_service}/", "data:"))] == []


def test_every_word_a_person_reads_is_in_one_file():
    written = re.compile(r'(textContent = |"aria-label": |title: |alt: |\}, )"[^"]*[A-Za-z]{3}')
    modules = [path for path in STATIC.rglob("*.js") if path.name not in ("strings.js", "main.js")]
    spoken = {path.name: found.group() for path in modules if (found := written.search(path.read_text()))}
    assert spoken == {}


def test_nothing_that_was_read_can_become_markup_or_a_style():
    refused = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\bstyle: |\"style\"|eval\(")
    assert [path.name for path in STATIC.rglob("*.js") if refused.search(path.read_text())] == []
