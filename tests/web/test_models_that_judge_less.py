"""Models that judge no malignancy, or draw no outline: every view says so in words, and shows no number instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.cli.client import running_service
from tests.foreign_networks import BLOCK_ENTRY, block_network, write_foreign_model
from tests.tiny_kinds import write_detector_only
from tests.tiny_model import tiny_detector
from tests.web.person import finished_job, get, open_reading, service_settings

MADE_UP = re.compile(r"NaN|undefined|\bnull\b|malignancy < 0.1 %|(?<![\d.,])0 mm|\b0 %")


@pytest.fixture(scope="module")
def lesser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a service with a foreign characteriser, and with a detector alone."""
    store = tmp_path_factory.mktemp("lesser")
    write_foreign_model(store, BLOCK_ENTRY, block_network())
    write_detector_only(store, tiny_detector(), {"score_threshold": 0.5, "halo_voxels": 16})
    with running_service(service_settings(store, MODELS="foreign,alone")) as service:
        yield service.url


@pytest.fixture(scope="module", params=["foreign", "alone"])
def job(request: pytest.FixtureRequest, lesser: str, phantom_folder: Path) -> str:
    made = finished_job(lesser, sorted(phantom_folder.iterdir()), model=request.param)
    nodules = get(f"{lesser}/v1/jobs/{made}/result")["nodules"]
    assert nodules
    assert {nodule["malignancy_probability"] for nodule in nodules} == {None}
    assert ({nodule["volume_mm3"] for nodule in nodules} == {None}) == (request.param == "alone")
    return made


def read(page: Page) -> str:
    text = page.locator("main").inner_text()
    assert MADE_UP.search(text) is None, MADE_UP.search(text)
    return text


def test_the_reading_says_what_was_not_judged(page: Page, lesser: str, job: str, screenshots: Path):
    result = get(f"{lesser}/v1/jobs/{job}/result")
    open_reading(page, lesser, job)
    expect(page.locator(".finding").first).to_contain_text("malignancy not judged")
    expect(page.locator(".malignancy .figure")).to_have_text(re.compile(r"^not judged\s*$"))
    expect(page.locator(".malignancy")).to_contain_text(result["malignancy_meaning"])
    page.get_by_label("Sort by").select_option("malignancy")
    page.screenshot(path=screenshots / f"reading-{result['model']['name']}.png")
    page.keyboard.press("n")
    outlined = result["nodules"][0]["volume_mm3"] is not None
    expect(page.locator(".facts")).to_contain_text("mm³" if outlined else "the model draws no outline")
    page.get_by_role("button", name="Why did the network mark it?").click()
    expect(page.locator(".explanation [role=alert]")).not_to_be_empty()
    read(page)
    page.get_by_role("button", name="As text").click()
    text = page.get_by_role("textbox", name="Findings as text").input_value()
    assert "malignancy not judged" in text
    assert ("volume not measured" in text) == (not outlined)
    assert MADE_UP.search(text) is None


def test_the_other_views_do_without(page: Page, lesser: str, job: str, screenshots: Path):
    result = get(f"{lesser}/v1/jobs/{job}/result")
    page.goto(f"{lesser}/workspace/#/jobs/{job}/3d")
    shown = page.locator(".scene-label:not([hidden])")
    expect(shown).to_have_count(len(result["nodules"]), timeout=60_000)
    page.screenshot(path=screenshots / f"scene-{result['model']['name']}.png")
    no_outline = result["nodules"][0]["volume_mm3"] is None
    assert ("draws no outlines" in read(page)) == no_outline
    page.goto(f"{lesser}/workspace/#/jobs/{job}/patient")
    expect(page.locator(".patient-marks li")).to_have_count(len(result["nodules"]))
    read(page)
    page.goto(f"{lesser}/workspace/#/jobs/{job}/prior")
    expect(page.get_by_role("alert")).to_contain_text("was not compared")
    page.goto(f"{lesser}/workspace/#/dashboard")
    expect(page.locator("figure.chart", has_text="Probabilities of malignancy")).to_be_visible(timeout=30_000)
    read(page)
    model = result["model"]
    page.goto(f"{lesser}/workspace/#/models/{model['name']}/{model['version']}")
    expect(page.get_by_role("heading", name="Operating points")).to_be_visible()
    read(page)
