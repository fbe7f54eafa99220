"""The page is there, under a policy that lets nothing in from elsewhere."""

from __future__ import annotations

import re

import numpy as np
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


def test_links_of_a_service_below_a_path_are_followed(page: Page, workspace_service: str):
    page.goto(f"{workspace_service}/workspace/")
    found = page.evaluate(
        """async () => {
            const { createApi } = await import("./static/api.js");
            const [plain, below] = ["http://h/", "http://h/ct/lung/"].map((base) => createApi(new URL(base)));
            return [plain.url("v1/j"), plain.url("/v1/j?a=1"), below.url("v1/j"), below.url("/ct/lung/v1/j")];
        }"""
    )
    assert found == ["http://h/v1/j", "http://h/v1/j?a=1", "http://h/ct/lung/v1/j", "http://h/ct/lung/v1/j"]


def test_points_of_an_oblique_scan_go_to_its_planes_and_back(page: Page, workspace_service: str):
    rng = np.random.default_rng(3)
    matrix = np.eye(4)
    matrix[:3] = rng.normal(size=(3, 4)) * [2.5, 0.7, 0.7, 100]
    page.goto(f"{workspace_service}/workspace/")
    inverse = page.evaluate(
        "async (matrix) => (await import('./static/reading/geometry.js')).inverse(matrix)", matrix.tolist()
    )
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), atol=1e-9)
