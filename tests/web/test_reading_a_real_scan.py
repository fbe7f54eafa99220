"""LIDC-IDRI-0001 from the drop to the report, on the repository's model: the main job, as a person does it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.person import (
    SELECTED,
    drop,
    fitted,
    get,
    open_reading,
    picture,
    pixels_of,
    place_of,
    wait_for_slices,
)


@pytest.fixture(scope="module")
def dropped(browser: Browser, shipped_workspace: str, shared_data: Path) -> Iterator[tuple[str, list[str]]]:
    """Id of the job that dropping the zip made, and what the page said meanwhile."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(f"{shipped_workspace}/workspace/")
    page.wait_for_selector(".drop")
    page.evaluate(
        """() => {
            window.said = [];
            const watch = new MutationObserver(() => window.said.push(document.querySelector(".sent")?.innerText));
            watch.observe(document.getElementById("view"), {subtree: true, childList: true, characterData: true});
        }"""
    )
    drop(page, ".drop", [shared_data / "ct/LIDC-IDRI-0001.zip"])
    link = page.get_by_role("link", name="Open the reading")
    link.wait_for(timeout=240_000)
    said: list[str] = [text for text in page.evaluate("() => window.said") if text]
    link.click()
    wait_for_slices(page)
    yield page.url.partition("#/jobs/")[2], said
    context.close()


@pytest.fixture
def reading(kept_tab: Page, shipped_workspace: str, dropped: tuple[str, list[str]]) -> Page:
    kept_tab.goto("about:blank")
    open_reading(kept_tab, shipped_workspace, dropped[0])
    return kept_tab


@pytest.fixture
def job_url(shipped_workspace: str, dropped: tuple[str, list[str]]) -> str:
    return f"{shipped_workspace}/v1/jobs/{dropped[0]}"


def test_upload_and_every_stage_are_seen(dropped: tuple[str, list[str]]):
    said = "\n".join(dropped[1])
    assert "1 file, 35 MB" in said
    assert "Uploading" in said
    for stage in ("Read", "Find lungs", "Prepare", "Detect", "Characterise", "Measure"):
        assert stage in said
    assert "Running: detect." in said


def test_the_box_lies_over_the_annotated_nodule(reading: Page, job_url: str, shared_data: Path, screenshots: Path):
    volume, result = get(f"{job_url}/volume"), get(f"{job_url}/result")
    series = result["series"]["series_instance_uid"]
    with (shared_data / "luna16/annotations.csv").open(newline="") as file:
        (truth,) = [row for row in csv.DictReader(file) if row["seriesuid"] == series]
    place = place_of(volume, "axial", [float(truth[f"coord{axis}"]) for axis in "XYZ"])
    assert int(reading.locator(".plane[data-plane=axial]").get_attribute("data-slice") or -1) == pytest.approx(
        place[0], abs=2
    )
    reading.screenshot(path=screenshots / "reading-lidc.png")
    for key in ("m", "x"):
        reading.keyboard.press(key)
    shown = picture(reading)
    scale, origin = fitted(volume, "axial", shown)
    y, x = np.rint(place[1:] * scale + origin).astype(int)
    box = np.argwhere(pixels_of(shown, SELECTED))
    (top, left), (bottom, right) = np.percentile(box, 2, axis=0), np.percentile(box, 98, axis=0)
    assert top < y < bottom
    assert left < x < right
    # Bright within: soft tissue in the window for lungs. Dark beside: the lung in front of it.
    assert shown[y - 2 : y + 3, x - 2 : x + 3, 0].mean() > 200
    height = int(bottom - top)
    assert shown[int(top) - height : int(top) - height // 2, x - 3 : x + 4, 0].mean() < 110


def test_a_narrow_window_darkens_the_lung_as_its_hu_say(reading: Page, job_url: str):
    volume = get(f"{job_url}/volume")
    before = picture(reading)
    reading.keyboard.press("2")
    wait_for_slices(reading)
    after = picture(reading)
    scale, origin = fitted(volume, "axial", after)
    plane, z = volume["planes"]["axial"], int(reading.locator("[data-plane=axial]").get_attribute("data-slice") or -1)
    for row, column in ((256, 130), (200, 256)):
        lps = (np.array(plane["to_lps_mm"]) @ [z, row, column, 1])[:3]
        hu = get(f"{job_url}/volume/hu?lps={','.join(f'{mm:.3f}' for mm in lps)}")["hu"]
        y, x = np.rint(np.array([row, column]) * scale + origin).astype(int)
        for shown, center, width in ((before, -600, 1500), (after, 40, 400)):
            grey = np.clip((hu - center) / width + 0.5, 0, 1) * 255
            assert shown[y, x, 0] == pytest.approx(grey, abs=30)


def test_the_next_image_is_the_next_number(reading: Page):
    axial = reading.locator(".plane[data-plane=axial]")
    before = int(axial.get_attribute("data-instance") or 0)
    reading.keyboard.press("PageDown")
    expect(axial).to_have_attribute("data-instance", str(before + 1))
    expect(axial.locator(".image-number")).to_have_text(f"Image {before + 1}")


def test_the_threshold_hides_the_nodule_and_says_what_was_measured(reading: Page, job_url: str):
    known = get(f"{job_url}/candidates")
    slider = reading.get_by_label("Show from a probability of")
    expect(reading.locator("#threshold-meaning")).to_contain_text(known["measured_on"])
    expect(reading.locator("#threshold-meaning")).to_contain_text("finds 92 % of nodules with 1.00 false marks a scan")
    slider.focus()
    slider.press("Home")
    expect(reading.locator(".finding")).to_have_count(len(known["candidates"]))
    slider.press("End")
    expect(reading.locator(".finding")).to_have_count(0)
    assert not pixels_of(picture(reading), SELECTED).any()


def test_reports_are_downloaded(reading: Page):
    reading.get_by_text("Downloads", exact=True).click()
    bodies = {}
    for form, name in (("sr", "DICOM SR"), ("pdf", "PDF report")):
        with reading.expect_download(timeout=60_000) as coming:
            reading.get_by_role("button", name=name, exact=True).click()
        bodies[form] = Path(coming.value.path()).read_bytes()
    assert bodies["pdf"].startswith(b"%PDF-")
    report = pydicom.dcmread(io.BytesIO(bodies["sr"]))
    assert report.SOPClassUID.name == "Comprehensive 3D SR Storage"
    assert report.Modality == "SR"
