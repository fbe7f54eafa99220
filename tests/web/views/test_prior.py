"""Both scans scroll together as the matrix says, and growth is told and drawn as the comparison has it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page, expect

from app.imaging.volume import CtVolume
from tests.web.views.prior_worlds import pair, prior_answers, prior_from_current
from tests.web.views.worlds import JOB


@pytest.fixture
def view(visit) -> Page:
    page = visit(f"jobs/{JOB}/prior", prior_answers())
    shown(page.locator("canvas").nth(0))
    shown(page.locator("canvas").nth(1))
    return page


def shown(canvas: Locator) -> int:
    """The slice that is drawn, once it is the one asked for."""
    canvas.page.wait_for_function(
        "(canvas) => Number(canvas.dataset.shown) + 1 === Number(canvas.getAttribute('aria-valuenow'))",
        arg=canvas.element_handle(),
    )
    return int(canvas.get_attribute("data-shown") or -1)


def pixels(canvas: Locator) -> NDArray[np.int64]:
    flat = canvas.evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    return np.array(flat).reshape(int(canvas.get_attribute("height")), int(canvas.get_attribute("width")), 4)[..., :3]


def to_prior(point_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    return (prior_from_current() @ [*point_lps_mm, 1.0])[:3]


def index_of(scan: CtVolume, point_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.linalg.inv(scan.grid.affine) @ [*point_lps_mm, 1.0])[:3]


def partner_of(slice_z: int) -> int:
    """By the motion of the phantom, not by the page: of the middle of the picture."""
    _, rows, columns = pair().current.grid.shape_zyx
    middle = (pair().current.grid.affine @ [slice_z, rows / 2, columns / 2, 1.0])[:3]
    return round(float(index_of(pair().prior, to_prior(middle))[0]))


def test_scrolling_one_scrolls_the_other_to_where_the_matrix_says(view: Page):
    current, prior = view.locator("canvas").nth(0), view.locator("canvas").nth(1)
    start = shown(current)
    assert shown(prior) == partner_of(start) != start
    current.hover()
    for _ in range(3):
        view.mouse.wheel(0, 120)
    expect(current).to_have_attribute("aria-valuenow", str(start + 4))
    assert shown(prior) == partner_of(start + 3)
    current.focus()
    view.keyboard.press("PageUp")
    expect(current).to_have_attribute("aria-valuenow", str(start - 6))
    assert shown(prior) == partner_of(start - 7)
    prior.focus()
    view.keyboard.press("ArrowDown")
    expect(prior).to_have_attribute("aria-valuenow", str(partner_of(start - 7) + 2))
    assert abs(shown(current) - (start - 6)) <= 1


def test_unlinked_they_scroll_alone(view: Page):
    current, prior = view.locator("canvas").nth(0), view.locator("canvas").nth(1)
    before = shown(prior)
    view.get_by_label("Scroll both together").uncheck()
    current.focus()
    view.keyboard.press("PageDown")
    shown(current)
    assert shown(prior) == before
    view.get_by_label("Scroll both together").check()
    expect(prior).to_have_attribute("aria-valuenow", str(partner_of(shown(current)) + 1))


def test_a_pair_is_shown_in_both_with_the_nodule_within_its_ring(view: Page, inspected):
    view.get_by_role("button", name="nodule-1").click()
    nodule = pair().nodules[0]
    for canvas, scan, place, diameter in (
        (view.locator("canvas").nth(0), pair().current, nodule.current_lps_mm, nodule.current_mm),
        (view.locator("canvas").nth(1), pair().prior, nodule.prior_lps_mm, nodule.prior_mm),
    ):
        z, row, column = index_of(scan, place)
        assert abs(shown(canvas) - z) <= 1
        picture = pixels(canvas)
        assert picture[round(row), round(column)].min() > 150, "the nodule is bright in the lung window"
        edge = round(column + (diameter / 2 + 3) / scan.grid.spacing_zyx_mm[2])
        ring = picture[round(row), edge - 1 : edge + 2]
        assert (ring[:, 0] - ring[:, 2]).max() > 60, "orange, the colour of A"
    inspected("prior")


def test_pixels_are_those_of_the_scan_in_the_window_that_was_chosen(view: Page):
    view.get_by_label("Window", exact=True).select_option(label="Mediastinum")
    canvas = view.locator("canvas").nth(0)
    z = shown(canvas)
    expected = np.clip((pair().current.hu[z] + 160) / 400 * 255, 0, 255).astype(np.uint8)
    view.wait_for_function(
        "([canvas, value]) => canvas.getContext('2d').getImageData(5, 75, 1, 1).data[0] === value",
        arg=[canvas.element_handle(), int(expected[75, 5])],
    )
    same = pixels(canvas)[..., 0] == expected
    assert same.mean() > 0.97, "all but the rings"


def test_growth_is_told_as_the_comparison_has_it(view: Page):
    row = view.get_by_role("row").filter(has_text="nodule-1")
    expect(row).to_contain_text("9.0 → 13.0 (+4.0)")
    expect(row).to_contain_text("382 → 1150")
    expect(row).to_contain_text("+201 % (+150 to +260)")
    expect(row).to_contain_text("75 days (64 to 91)")
    expect(row).to_contain_text("Grown")
    expect(view.get_by_role("row").filter(has_text="nodule-2").first).to_contain_text("Stable (within the uncertainty)")
    expect(view.locator(".prior-lone li")).to_have_text(
        ["nodule-3 (8.0 mm, current scan) is new: the earlier scan shows nothing there."]
    )
    expect(view.locator("main")).to_contain_text("120 days lie between the scans.")


def test_growth_is_drawn_over_the_days(view: Page):
    lines = view.locator("figure", has_text="Diameter then and now").locator("polyline")
    (x0, y0), (x1, y1) = [map(float, point.split(",")) for point in lines.nth(0).get_attribute("points").split()]
    (_, s0), (_, s1) = [map(float, point.split(",")) for point in lines.nth(1).get_attribute("points").split()]
    assert x0 < x1
    assert y0 > y1, "grown: the line goes up"
    assert s0 == pytest.approx(s1)
    assert (y0 - y1) / (y0 - s0) == pytest.approx(4.0 / 1.0), "9 to 13 mm against 9 to 10 mm"


def test_without_dates_there_are_bars(visit):
    page = visit(f"jobs/{JOB}/prior", prior_answers(None))
    chart = page.locator("figure", has_text="Diameter then and now")
    expect(chart).to_be_visible()
    heights = [
        float(height)
        for height in chart.locator("rect[fill^='url']").evaluate_all(
            "(all) => all.map((one) => one.getAttribute('height'))"
        )
    ]
    bars = [height for height in heights if height != 18]
    assert bars[2] / bars[0] == pytest.approx(13 / 9)
    expect(page.locator("main")).to_contain_text("How many days lie between the scans is not known.")


def test_without_a_stored_prior_the_figures_are_there(visit):
    given = prior_answers()
    del given[f"jobs/{JOB}/prior"]
    page = visit(f"jobs/{JOB}/prior", given)
    expect(page.get_by_role("alert")).to_contain_text("cannot be shown side by side")
    expect(page.get_by_role("row").filter(has_text="nodule-1").first).to_contain_text("9.0 → 13.0")


def test_an_erased_prior_is_named_and_the_figures_are_there(visit):
    given = prior_answers()
    given[f"jobs/{JOB}/prior"]["available"] = False
    page = visit(f"jobs/{JOB}/prior", given)
    expect(page.get_by_role("alert")).to_contain_text("no longer stored")


def test_scans_that_could_not_be_laid_over_each_other_scroll_alone(visit):
    given = prior_answers()
    given[f"jobs/{JOB}/prior"]["current_to_prior_lps"] = None
    page = visit(f"jobs/{JOB}/prior", given)
    prior = page.locator("canvas").nth(1)
    expect(page.get_by_label("Scroll both together")).to_be_disabled()
    expect(page.locator("main")).to_contain_text("each is scrolled alone")
    before = shown(prior)
    page.locator("canvas").nth(0).focus()
    page.keyboard.press("PageDown")
    shown(page.locator("canvas").nth(0))
    assert shown(prior) == before


def test_a_scan_without_comparison_says_so(visit):
    given = prior_answers()
    given[f"jobs/{JOB}/result"]["comparison"] = None
    page = visit(f"jobs/{JOB}/prior", given)
    expect(page.get_by_role("alert")).to_contain_text("was not compared")
