"""The page is there, under a policy that lets nothing in from elsewhere."""

from __future__ import annotations

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
    spoken = [
        path for path in STATIC.rglob("*.js") if path.name != "strings.js" and 'textContent = "' in path.read_text()
    ]
    assert spoken == []
