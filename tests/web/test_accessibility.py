"""The page for those who see little, see colours otherwise, or use no mouse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.web.person import open_reading


def serious_findings(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {[node['target'] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_home_has_no_serious_finding(page: Page, idle_service: str, theme: str, screenshots: Path):
    page.goto(f"{idle_service}/workspace/")
    page.wait_for_selector(".studies, .home p.soft")
    page.get_by_text("Options", exact=True).click()
    in_theme(page, theme)
    page.screenshot(path=screenshots / f"home-{theme}.png")
    assert serious_findings(page) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_reading_has_no_serious_finding(
    page: Page, workspace_service: str, phantom_study: str, theme: str, screenshots: Path
):
    open_reading(page, workspace_service, phantom_study)
    page.get_by_text("Lung-RADS 2022").click()
    page.get_by_text("Downloads", exact=True).click()
    in_theme(page, theme)
    page.screenshot(path=screenshots / f"reading-{theme}.png")
    assert serious_findings(page) == []
    page.keyboard.press("?")
    page.screenshot(path=screenshots / f"keys-{theme}.png")
    assert serious_findings(page) == []


def in_theme(page: Page, theme: str) -> None:
    if theme == "light":
        page.get_by_role("button", name="Light theme").click()
    assert page.evaluate("() => document.documentElement.dataset.theme") == theme


def test_the_theme_is_kept_and_dark_is_the_first(page: Page, workspace_service: str):
    page.goto(f"{workspace_service}/workspace/")
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light theme").click()
    page.reload()
    page.wait_for_selector(".drop")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != dark
    page.get_by_role("button", name="Dark theme").wait_for()


def test_a_plane_is_a_slider_for_those_who_hear_the_page(page: Page, workspace_service: str, phantom_study: str):
    open_reading(page, workspace_service, phantom_study)
    axial = page.get_by_role("slider", name="Axial")
    before = axial.get_attribute("aria-valuetext") or ""
    assert re.fullmatch(r"image \d+, slice \d+ of 64, z .?[\d.]+ mm", before)
    axial.focus()
    page.keyboard.press("PageDown")
    expect(axial).not_to_have_attribute("aria-valuetext", before)


@pytest.mark.parametrize("width", [720, 360])
def test_at_200_percent_and_on_a_phone_nothing_lies_outside(
    page: Page, workspace_service: str, phantom_study: str, screenshots: Path, width: int
):
    # 1440 pixels at 200 % are 720 for the page.
    page.set_viewport_size({"width": width, "height": 640})
    for name, path in (("home", ""), ("reading", f"#/jobs/{phantom_study}")):
        page.goto(f"{workspace_service}/workspace/{path}")
        page.wait_for_selector(".plane" if path else ".studies")
        page.screenshot(path=screenshots / f"{name}-{width}.png", full_page=True)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        expect(page.locator("#disclaimer")).to_be_in_viewport()


def test_what_has_the_focus_is_seen(page: Page, workspace_service: str):
    page.goto(f"{workspace_service}/workspace/")
    page.wait_for_selector(".drop")
    seen = []
    for _ in range(9):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "() => { const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);"
                " return [document.activeElement.textContent, outlineStyle, outlineWidth]; }"
            )
        )
    assert [style for _, *style in seen] == [["solid", "2px"]] * 9
    names = [name for name, *_ in seen]
    assert names[:3] == ["Skip to the content", "lungnodule", "Studies"]
    assert names[-2:] == ["Choose a folder", "Choose files"]
