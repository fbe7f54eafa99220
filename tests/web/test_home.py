"""A person sends a scan in, sees what becomes of it, and takes it away again."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from tests.web.person import CANARY_FILE, CANARY_PATIENT, drop, get


def test_a_folder_that_is_dropped_becomes_a_reading(
    page: Page, workspace_service: str, phantom_folder: Path, screenshots: Path
):
    # The driver does not show bodies with files: what the page gives to the browser is looked at instead.
    page.add_init_script(
        """const send = XMLHttpRequest.prototype.send;
        XMLHttpRequest.prototype.send = function (form) {
            window.sentNames = form.getAll("files").map((file) => file.name);
            return send.call(this, form);
        };"""
    )
    page.goto(f"{workspace_service}/workspace/")
    page.wait_for_selector(".drop")
    drop(page, ".drop", [phantom_folder])
    card = page.locator(".sent")
    expect(card.get_by_role("heading")).to_contain_text("64 files")
    card.get_by_role("link", name="Open the reading").wait_for(timeout=60_000)
    expect(page.locator("#announcer")).to_have_text("The answer is there.")
    page.screenshot(path=screenshots / "home.png")
    assert page.evaluate("() => window.sentNames") == [f"{number:06d}.dcm" for number in range(64)]
    card.get_by_role("link", name="Open the reading").click()
    page.wait_for_selector(".plane")
    assert page.url.partition("#/jobs/")[2].isalnum()


def test_nothing_of_the_patient_outlives_the_page(page: Page, workspace_service: str, phantom_study: str):
    page.goto(f"{workspace_service}/workspace/#/jobs/{phantom_study}")
    page.wait_for_selector(".finding")
    page.get_by_role("button", name="Light theme").click()
    kept = page.evaluate(
        "() => JSON.stringify([location.href, document.title, document.cookie, {...localStorage}, {...sessionStorage}])"
    )
    seen = page.content()
    for canary in (CANARY_PATIENT, CANARY_FILE):
        assert canary not in kept
        assert canary not in seen
    assert page.evaluate("() => JSON.stringify({...localStorage})") == '{"lungnodule-theme":"light"}'


def test_how_much_is_sent_is_seen_and_an_upload_can_be_stopped(page: Page, idle_service: str, phantom_folder: Path):
    page.goto(f"{idle_service}/workspace/")
    page.wait_for_selector(".drop")
    before = get(f"{idle_service}/v1/jobs")["jobs"]
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    drop(page, ".drop", [phantom_folder])
    card = page.locator(".sent")
    bar = card.get_by_role("progressbar")
    page.wait_for_function(
        "() => { const bar = document.querySelector('.sent progress'); return bar && bar.value > 0.2; }"
    )
    assert float(bar.evaluate("(bar) => bar.value")) < 1
    expect(card).to_contain_text(re.compile(r"Uploading: [1-9][0-9]? % of 2 MB"))
    card.get_by_role("button", name="Stop the upload").click()
    expect(card).to_contain_text("Upload stopped")
    assert get(f"{idle_service}/v1/jobs")["jobs"] == before


def test_what_cannot_be_used_is_refused_in_words(page: Page, workspace_service: str, tmp_path: Path):
    (tmp_path / "letter.txt").write_text("no scan")
    page.goto(f"{workspace_service}/workspace/")
    page.wait_for_selector(".drop")
    drop(page, ".drop", [tmp_path / "letter.txt"])
    card = page.locator(".sent.refused")
    expect(card).to_contain_text("Code: ", timeout=30_000)
    said = card.inner_text()
    assert "DICOM" in said
    assert "undefined" not in said


def test_an_empty_choice_is_refused_before_it_is_sent(page: Page, workspace_service: str, tmp_path: Path):
    (tmp_path / "empty.dcm").touch()
    page.goto(f"{workspace_service}/workspace/")
    page.wait_for_selector(".drop")
    drop(page, ".drop", [tmp_path / "empty.dcm"])
    expect(page.get_by_role("alert").filter(has_text="no file with content")).to_be_visible()


def test_a_waiting_job_shows_its_place_and_can_be_cancelled(page: Page, idle_service: str, phantom_folder: Path):
    page.goto(f"{idle_service}/workspace/")
    page.wait_for_selector(".drop")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Choose files").press("Enter")
    chosen.value.set_files(sorted(phantom_folder.iterdir()))
    expect(page.locator(".sent")).to_contain_text("number 1 in the line", timeout=30_000)
    page.locator(".sent").get_by_role("button", name="Cancel").click()
    expect(page.locator(".sent")).to_contain_text("Cancelled.", timeout=10_000)
    expect(page.locator(".studies .state")).to_have_text("Cancelled", timeout=10_000)


def test_data_are_deleted_after_a_question(page: Page, idle_service: str, phantom_folder: Path):
    page.goto(f"{idle_service}/workspace/")
    page.wait_for_selector(".drop")
    page.locator("input[type=file]:not([webkitdirectory])").set_input_files(sorted(phantom_folder.iterdir())[:40])
    page.locator(".sent").get_by_text("in the line").wait_for()
    job = get(f"{idle_service}/v1/jobs?state=queued")["jobs"][0]["id"]
    row = page.locator(f"tr[data-job='{job}']")
    row.get_by_role("button", name="Delete data").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    assert get(f"{idle_service}/v1/jobs/{job}")["state"] == "queued"
    row.get_by_role("button", name="Delete data").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete for good").click()
    expect(row).to_have_count(0)
    with pytest.raises(urllib.error.HTTPError) as gone:
        get(f"{idle_service}/v1/jobs/{job}")
    assert gone.value.code == 410
    gone.value.close()


def test_a_folder_is_chosen_with_the_keyboard_alone(page: Page, idle_service: str):
    page.goto(f"{idle_service}/workspace/")
    page.wait_for_selector(".drop")
    # No driver sees the browser's dialog for folders: that the hidden input is asked for one is what can be told.
    page.eval_on_selector(
        "input[webkitdirectory]",
        "(input) => input.addEventListener('click', (event) => { event.preventDefault(); input.dataset.asked = '1'; })",
    )
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent") == "Choose a folder":
            break
    page.keyboard.press("Enter")
    expect(page.locator("input[webkitdirectory][data-asked]")).to_have_count(1)


def test_a_chosen_folder_is_sent(page: Page, idle_service: str, phantom_folder: Path):
    page.goto(f"{idle_service}/workspace/")
    page.wait_for_selector(".drop")
    page.locator("input[webkitdirectory]").set_input_files(phantom_folder)
    expect(page.locator(".sent").get_by_role("heading")).to_contain_text("64 files")


def test_several_series_become_a_study_each(page: Page, idle_service: str, tmp_path: Path):
    for seed in (1, 2):
        write_dicom_series(phantom_ct(shape_zyx=(40, 64, 64), seed=seed).volume, tmp_path / str(seed))
    page.goto(f"{idle_service}/workspace/")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Analyse every series of the upload").check()
    expect(page.get_by_label("Age in years")).to_be_hidden()
    drop(page, ".drop", [tmp_path / "1", tmp_path / "2"])
    expect(page.locator(".sent")).to_contain_text("2 series are analysed", timeout=30_000)


def test_what_is_told_of_the_patient_reaches_the_guidelines(page: Page, workspace_service: str, phantom_folder: Path):
    page.goto(f"{workspace_service}/workspace/")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Age in years").fill("61")
    page.get_by_label("Why the CT was made").select_option("screening")
    page.get_by_label("Emphysema").select_option("false")
    page.locator("input[webkitdirectory]").set_input_files(phantom_folder)
    link = page.get_by_role("link", name="Open the reading")
    link.wait_for(timeout=60_000)
    job = (link.get_attribute("href") or "").rpartition("/")[2]
    told = get(f"{workspace_service}/v1/jobs/{job}/result")["assessment"]["context"]
    assert told == {"age_years": 61.0, "setting": "screening", "emphysema": False}
