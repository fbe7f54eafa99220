"""An installation that asks for a key, as three people meet it: who reads, who runs it, who is of another tenant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from app.cli.client import running_service
from tests.web.person import drop, service_settings, wait_for_slices


@dataclass(frozen=True)
class Guarded:
    """A service that asks everybody for a key, and the keys there are."""

    url: str
    reader: str
    operator: str
    stranger: str


@pytest.fixture(scope="module")
def guarded(tiny_model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    settings = service_settings(tiny_model_store, MODELS="tiny", ACCESS="required", DATA_DIR=str(folder / "data"))

    def key(name: str, roles: str, tenant: str) -> str:
        command = [sys.executable, "-m", "app.cli", "keys", "create", name, "--roles", roles, "--tenant", tenant]
        return subprocess.run(command, env=os.environ | settings, check=True, capture_output=True, text=True).stdout

    with running_service(settings) as service:
        yield Guarded(
            service.url,
            key("reading-room", "submit,read", "radiology").strip(),
            key("installation", "operate", "default").strip(),
            key("surgery-1", "submit,read", "surgery").strip(),
        )


def sign_in(page: Page, key: str) -> None:
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_label("Key").press("Enter")
    expect(dialog).to_have_count(0)


def new_page(context: BrowserContext, address: str) -> Page:
    browser = context.browser
    assert browser is not None
    page = browser.new_context().new_page()
    page.goto(address)
    return page


def test_a_key_opens_the_page_and_signing_out_closes_it(
    page: Page, guarded: Guarded, phantom_folder: Path, screenshots: Path
):
    page.goto(f"{guarded.url}/workspace/")
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Key").fill("ln_wrong_key")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).to_contain_text("not known")
    page.screenshot(path=screenshots / "sign-in.png")
    sign_in(page, guarded.reader)
    page.wait_for_selector(".drop")
    expect(page.locator(".account")).to_contain_text("Signed in as reading-room")

    drop(page, ".drop", [phantom_folder])
    link = page.get_by_role("link", name="Open the reading")
    link.wait_for(timeout=120_000)
    link.click()
    wait_for_slices(page)
    expect(page.locator(".finding")).to_have_count(3)
    thumbnail = page.locator(".finding img").first
    page.wait_for_function("(image) => image.naturalWidth === 112", arg=thumbnail.element_handle())
    page.get_by_label("Reader's name").fill("Ada Reader")
    page.locator(".plane[data-plane=axial]").focus()
    page.keyboard.press("a")
    expect(page.locator(".review [role=status]")).to_contain_text("1 of 3 decided")
    address = page.url

    page.get_by_role("link", name="Dashboard").click()
    expect(page.get_by_role("status").first).to_contain_text("a key that has the role operate")
    page.screenshot(path=screenshots / "dashboard-forbidden.png")

    page.goto(address)
    page.wait_for_selector(".finding")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("dialog", name="Sign in").wait_for()
    assert page.locator(".finding").count() == 0, "what was seen is gone"
    kept = page.evaluate(
        "() => JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, document.cookie])"
    )
    assert guarded.reader not in kept

    stranger = new_page(page.context, address)
    sign_in(stranger, guarded.stranger)
    expect(stranger.get_by_role("alert")).to_contain_text("No job has this id.")
    assert stranger.locator(".finding").count() == 0
    stranger.context.close()


def test_who_runs_the_installation_sees_its_figures(page: Page, guarded: Guarded):
    page.goto(f"{guarded.url}/workspace/#/dashboard")
    sign_in(page, guarded.operator)
    expect(page.locator("figure.chart", has_text="Jobs by day")).to_be_visible(timeout=30_000)


def test_whoever_goes_away_without_a_key_is_told_what_to_do(page: Page, guarded: Guarded):
    page.goto(f"{guarded.url}/workspace/")
    page.get_by_role("dialog", name="Sign in").wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_contain_text("This needs a key.")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
