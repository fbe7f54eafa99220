"""The scan beside the earlier one on the real service: two phantoms of one chest, analysed, registered and compared."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from app.phantom.files import write_metaimage
from tests.web.person import finished_job, get, place_of
from tests.web.views.prior_worlds import pair
from tests.web.views.worlds import SHOTS


@pytest.fixture(scope="module")
def compared(workspace_service: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Ids of the current and of the earlier job."""
    folder = tmp_path_factory.mktemp("pair")
    jobs = []
    for name, volume in (("before", pair().prior), ("now", pair().current)):
        write_metaimage(volume, folder / f"{name}.mha")
        prior = {"prior": jobs[0]} if jobs else {}
        jobs.append(finished_job(workspace_service, [folder / f"{name}.mha"], **prior))
    return jobs[1], jobs[0]


def slices_of(page: Page) -> list[int]:
    """Of the current and the earlier scan, once both are drawn."""
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.prior-axial canvas')]; return all.length === 2 && "
        "all.every((one) => Number(one.dataset.shown) + 1 === Number(one.getAttribute('aria-valuenow'))); }"
    )
    return [int(one.get_attribute("data-shown") or -1) for one in page.locator(".prior-axial canvas").all()]


def test_the_earlier_scan_lies_beside_and_follows(page: Page, workspace_service: str, compared: tuple[str, str]):
    now, before = compared
    result = get(f"{workspace_service}/v1/jobs/{now}/result")
    matched = result["comparison"]["matched"]
    page.goto(f"{workspace_service}/workspace/#/jobs/{now}")
    page.get_by_role("link", name="Prior").click()
    slices_of(page)
    where = pair().nodules[0].current_lps_mm
    grown = min(result["nodules"], key=lambda one: float(np.linalg.norm(one["center_lps_mm"] - where)))
    page.get_by_role("button", name=grown["id"]).click()
    shown = slices_of(page)
    volumes = [get(f"{workspace_service}/v1/jobs/{job}/volume") for job in (now, before)]
    places = (pair().nodules[0].current_lps_mm, pair().nodules[0].prior_lps_mm)
    for slice_z, volume, place in zip(shown, volumes, places, strict=True):
        assert slice_z == pytest.approx(place_of(volume, "axial", place)[0], abs=2)
    assert shown[0] != shown[1], "the shift is seen"
    page.locator(".prior-axial canvas").first.focus()
    page.keyboard.press("PageUp")
    after = slices_of(page)
    assert after[0] - shown[0] == after[1] - shown[1] != 0
    growth = next(one["growth"] for one in matched if one["current_id"] == grown["id"])
    row = page.get_by_role("row").filter(has_text=grown["id"]).first
    expect(row).to_contain_text(f"+{growth['volume_change_percent']:.0f} %")
    expect(row).to_contain_text("Grown")
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "prior-of-the-service.png", full_page=True)
