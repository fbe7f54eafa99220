"""What a reader decides is kept by the service, with their name, and comes back as a corrected report."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Page, Route, expect
from pydicom.dataset import Dataset

from tests.web.person import finished_job, fitted, get, open_reading, picture, place_of

READER = "Ada Reader"


@pytest.fixture
def study(workspace_service: str, phantom_folder: Path) -> str:
    """Its own job: a review is written to it."""
    return finished_job(workspace_service, sorted(phantom_folder.iterdir()))


@pytest.fixture
def review_url(workspace_service: str, study: str) -> str:
    return f"{workspace_service}/v1/jobs/{study}/review"


@pytest.fixture
def reading(page: Page, workspace_service: str, study: str) -> Page:
    open_reading(page, workspace_service, study)
    return page


def said_to_be_saved(page: Page, text: str) -> None:
    expect(page.locator(".review [role=status]")).to_contain_text(text)


def test_a_name_is_asked_for_before_anything_is_kept(reading: Page):
    reading.keyboard.press("a")
    said_to_be_saved(reading, "Enter the reader's name first")
    assert reading.evaluate("() => document.activeElement.id") == reading.get_by_label("Reader's name").get_attribute(
        "id"
    )


def test_the_question_for_a_name_stays_while_the_rest_arrives(page: Page, workspace_service: str, study: str):
    """Review, outlines and candidates come when they do; what the reader was just told must not go under."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    page.route("**/review", hold)
    open_reading(page, workspace_service, study)
    page.keyboard.press("a")
    said_to_be_saved(page, "Enter the reader's name first")
    with page.expect_response("**/review"):
        waiting[0].continue_()
    # Chosen anew, the findings are drawn anew.
    page.locator(".plane[data-plane=axial]").focus()
    page.keyboard.press("n")
    expect(page.locator(".finding[aria-current]")).to_contain_text("Nodule 2")
    said_to_be_saved(page, "Enter the reader's name first")


def test_decisions_are_kept_and_there_again_after_a_reload(
    reading: Page, workspace_service: str, study: str, review_url: str, screenshots: Path
):
    reading.get_by_label("Reader's name").fill(READER)
    reading.locator(".plane[data-plane=axial]").focus()
    reading.keyboard.press("a")
    said_to_be_saved(reading, "1 of 3 decided")
    reading.keyboard.press("n")
    reading.keyboard.press("r")
    said_to_be_saved(reading, "2 of 3 decided")
    reading.get_by_label("Note to the decision").fill("a vessel")
    reading.get_by_label("Note to the decision").press("Enter")
    expect(reading.locator("#announcer")).to_have_text("The note is saved.")
    kept = get(review_url)
    decisions = {one["nodule_id"]: (one["decision"], one["note"]) for one in kept["decisions"]}
    assert decisions == {"nodule-1": ("accepted", ""), "nodule-2": ("rejected", "a vessel")}
    assert kept["reviewer"] == READER
    reading.reload()
    expect(reading.locator(".finding[data-kind=accepted]")).to_contain_text("Nodule 1")
    expect(reading.locator(".finding[data-kind=rejected]")).to_contain_text("✕ rejected")
    reading.screenshot(path=screenshots / "review.png")
    # Whoever opens it next is not taken for the reader before.
    expect(reading.get_by_label("Reader's name")).to_have_value("")
    said_to_be_saved(reading, READER)
    reading.get_by_label("Reader's name").fill("Bea Reader")
    reading.get_by_role("button", name="Accept", exact=True).click()
    said_to_be_saved(reading, "1 of 3 decided")
    assert [one["nodule_id"] for one in get(review_url)["decisions"]] == ["nodule-2"]


def test_a_nodule_is_added_where_it_is_clicked_and_taken_away(
    reading: Page, workspace_service: str, study: str, review_url: str
):
    volume = get(f"{workspace_service}/v1/jobs/{study}/volume")
    reading.get_by_label("Reader's name").fill(READER)
    reading.locator(".plane[data-plane=axial]").focus()
    reading.keyboard.press("d")
    box = reading.locator(".plane[data-plane=axial]").bounding_box()
    assert box is not None
    scale, origin = fitted(volume, "axial", picture(reading))
    y, x = [60.0, 40.0] * scale + origin
    reading.mouse.click(box["x"] + x, box["y"] + y)
    said_to_be_saved(reading, "1 added")
    (added,) = get(review_url)["added"]
    assert place_of(volume, "axial", added["center_lps_mm"])[1:] == pytest.approx([60, 40], abs=1)
    reading.locator(".finding[data-kind=added]").click()
    reading.get_by_label("Diameter in mm").fill("9.5")
    reading.get_by_label("Diameter in mm").press("Enter")
    expect(reading.locator(".finding[data-kind=added]")).to_contain_text("9.5 mm")
    assert get(review_url)["added"][0]["diameter_mm"] == 9.5
    reading.locator(".plane[data-plane=axial]").focus()
    reading.keyboard.press("d")
    reading.keyboard.press("Enter")  # at the crosshair, without a pointer
    said_to_be_saved(reading, "2 added")
    assert get(review_url)["added"][1]["center_lps_mm"] == pytest.approx(added["center_lps_mm"], abs=0.01)
    reading.get_by_role("button", name="Remove this mark").click()
    said_to_be_saved(reading, "1 added")
    reading.locator(".finding[data-kind=added]").click()
    reading.get_by_role("button", name="Remove this mark").click()
    said_to_be_saved(reading, "0 added")
    assert get(review_url)["added"] == []


def test_two_readers_do_not_overwrite_each_other(reading: Page, review_url: str):
    reading.get_by_label("Reader's name").fill(READER)
    theirs = {
        "reviewer": "Bea Reader",
        "decisions": [{"nodule_id": "nodule-1", "decision": "rejected", "note": "scar"}],
        "added": [],
        "finished": False,
    }
    headers = {"Content-Type": "application/json", "If-None-Match": "*", "X-Requested-With": "lungnodule"}
    urllib.request.urlopen(
        urllib.request.Request(review_url, json.dumps(theirs).encode(), headers, method="PUT")
    ).close()
    reading.locator(".plane[data-plane=axial]").focus()
    reading.keyboard.press("a")
    said_to_be_saved(reading, "Somebody else saved a review meanwhile")
    expect(reading.locator(".finding[data-kind=rejected]")).to_contain_text("Nodule 1")
    assert get(review_url)["decisions"][0]["decision"] == "rejected"
    reading.keyboard.press("a")
    said_to_be_saved(reading, f"{READER}: 1 of 3 decided")
    assert get(review_url)["decisions"][0]["decision"] == "accepted"


def test_the_corrected_report_is_downloaded_with_the_readers_name(reading: Page):
    reading.get_by_text("Downloads", exact=True).click()
    button = reading.get_by_role("button", name="Corrected SR")
    expect(button).to_be_disabled()
    reading.get_by_label("Reader's name").fill(READER)
    reading.locator(".plane[data-plane=axial]").focus()
    reading.keyboard.press("r")
    said_to_be_saved(reading, "1 of 3 decided")
    reading.get_by_role("button", name="Finish the review").click()
    said_to_be_saved(reading, "Finished")
    with reading.expect_download() as coming:
        button.click()
    report = pydicom.dcmread(io.BytesIO(Path(coming.value.path()).read_bytes()))
    assert report.Modality == "SR"
    assert any("Reader" in str(value) for value in person_names(report))


def person_names(dataset: Dataset | Sequence[Dataset]) -> list[object]:
    """Every person's name in a dataset, however deep."""
    found: list[object] = []
    for element in dataset:
        if element.VR == "PN":
            found.append(element.value)
        elif element.VR == "SQ":
            found += [name for item in element.value for name in person_names(item)]
    return found
