"""A person reads a study: on a phantom, with the keyboard and the mouse, and everything they decide is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.web.person import SELECTED, fitted, get, open_reading, picture, pixels_of, place_of, wait_for_slices

MEASURE = np.array([0xE6, 0x9F, 0x00])


@pytest.fixture
def reading(kept_tab: Page, workspace_service: str, phantom_study: str) -> Page:
    kept_tab.emulate_media(media="screen")
    kept_tab.goto("about:blank")
    open_reading(kept_tab, workspace_service, phantom_study)
    return kept_tab


@pytest.fixture
def volume(workspace_service: str, phantom_study: str):
    return get(f"{workspace_service}/v1/jobs/{phantom_study}/volume")


@pytest.fixture
def result(workspace_service: str, phantom_study: str):
    return get(f"{workspace_service}/v1/jobs/{phantom_study}/result")


def instance_of(page: Page) -> int:
    return int(page.locator(".plane[data-plane=axial]").get_attribute("data-instance") or 0)


def slice_of(page: Page, plane: str = "axial") -> int:
    return int(page.locator(f".plane[data-plane={plane}]").get_attribute("data-slice") or -1)


def corners_of_the_box(page: Page) -> np.ndarray:
    """[[top, left], [bottom, right]] on the axial canvas, of the finding that is chosen, once outlines are away."""
    if page.get_by_role("button", name="Outlines on or off").get_attribute("aria-pressed") == "true":
        press(page, "m")
    lines = np.argwhere(pixels_of(picture(page), SELECTED))
    return np.stack([lines.min(axis=0), lines.max(axis=0)])


def point_under_the_pointer(page: Page) -> list[float]:
    """In LPS mm, as the page says it."""
    numbers = re.findall(r"[-\u2212]?[\d.]+", page.locator(".readout .place").inner_text())
    return [float(number.replace("\u2212", "-")) for number in numbers]


def press(page: Page, key: str) -> None:
    page.keyboard.press(key)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_the_most_suspicious_nodule_is_where_the_reading_begins(reading: Page, volume, result):
    center = result["nodules"][0]["center_lps_mm"]
    for plane in ("axial", "coronal", "sagittal"):
        assert slice_of(reading, plane) == round(place_of(volume, plane, center)[0])
    expect(reading.locator(".finding[aria-current]")).to_contain_text("Nodule 1")
    expect(reading.locator(".model")).to_contain_text("tiny:1.0.0")
    expect(reading.locator(".model")).to_contain_text(result["model"]["sha256"][:12])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_boxes_lie_on_the_pixels_of_the_nodule(reading: Page, volume, result, plane: str):
    shown = picture(reading, plane)
    # In voxels of the scan, whose planes here are axes in their order or reversed: corners by the matrices.
    box = result["nodules"][0]["bounding_box"]["index_zyx"]
    affine = np.array(volume["affine_index_zyx_to_lps_mm"])
    corners = [affine[:3, :3] @ np.array(box[end]) + affine[:3, 3] for end in ("min", "max")]
    if plane == "axial":
        z = slice_of(reading)
        own = next(one for one in result["nodules"][0]["slices"] if one["index_z"] == z)["box_px"]
        index = ([z, own[1], own[0]], [z, own[3], own[2]])
        corners = [affine[:3, :3] @ np.array(end) + affine[:3, 3] for end in index]
    scale, origin = fitted(volume, plane, shown)
    points = np.array([place_of(volume, plane, corner)[1:] for corner in corners])
    expected = np.sort(points, axis=0) * scale + origin
    reading.keyboard.press("m")  # outlines have the same colour
    drawn = picture(reading, plane)
    # The longest straight runs of the colour are the box's sides; its number is written above.
    is_box = pixels_of(drawn, np.array([0xF0, 0xE4, 0x42]))
    rows = np.flatnonzero(is_box.sum(axis=1) > 0.8 * (expected[1, 1] - expected[0, 1]))
    columns = np.flatnonzero(is_box.sum(axis=0) > 0.8 * (expected[1, 0] - expected[0, 0]))
    beside = 2  # CSS pixels between the outermost pixels of the nodule and the line
    assert rows.min() == pytest.approx(expected[0, 0] - beside, abs=2)
    assert rows.max() == pytest.approx(expected[1, 0] + beside, abs=2)
    assert columns.min() == pytest.approx(expected[0, 1] - beside, abs=2)
    assert columns.max() == pytest.approx(expected[1, 1] + beside, abs=2)


def test_slices_are_scrolled_by_key_and_wheel_and_counted_as_the_pacs_counts(reading: Page, volume):
    z = slice_of(reading)
    step = -1  # towards the feet: the phantom's slices run from feet to head
    numbers = {one["index_z"]: one["instance_number"] for one in volume["slices"]}
    press(reading, "PageDown")
    assert slice_of(reading) == z + step
    assert instance_of(reading) == numbers[z + step]
    expect(reading.locator(".image-number").first).to_have_text(f"Image {numbers[z + step]}")
    press(reading, "ArrowUp")
    assert slice_of(reading) == z
    press(reading, "End")
    assert slice_of(reading) == 0
    press(reading, "Home")
    assert slice_of(reading) == len(volume["slices"]) - 1
    reading.locator(".plane[data-plane=coronal]").hover()
    before = slice_of(reading, "coronal")
    reading.mouse.wheel(0, 120)
    expect(reading.locator(".plane[data-plane=coronal]")).not_to_have_attribute("data-slice", str(before))
    assert slice_of(reading) == len(volume["slices"]) - 1


def test_the_crosshair_links_the_planes(reading: Page, volume):
    box = reading.locator(".plane[data-plane=axial]").bounding_box()
    assert box is not None
    reading.mouse.click(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.45)
    shown = picture(reading)
    scale, origin = fitted(volume, "axial", shown)
    row, column = (np.array([0.45 * shown.shape[0], 0.4 * shown.shape[1]]) - origin) / scale
    matrix = np.array(volume["planes"]["axial"]["to_lps_mm"])
    lps = (matrix @ [slice_of(reading), row, column, 1])[:3]
    for plane in ("coronal", "sagittal"):
        assert slice_of(reading, plane) == pytest.approx(place_of(volume, plane, lps)[0], abs=1)


def test_another_window_is_there_at_once_and_then_exactly(
    reading: Page, workspace_service: str, phantom_study: str, volume
):
    shown = picture(reading)
    scale, origin = fitted(volume, "axial", shown)
    z, matrix = slice_of(reading), np.array(volume["planes"]["axial"]["to_lps_mm"])
    for preset, (center, width) in {"1": (-600, 1500), "2": (40, 400)}.items():
        press(reading, preset)
        wait_for_slices(reading)
        shown = picture(reading)
        for row, column in ((64, 20), (30, 64), (64, 64)):
            y, x = np.rint(np.array([row, column]) * scale + origin).astype(int)
            lps = (matrix @ [z, row, column, 1])[:3]
            at = ",".join(f"{mm:.3f}" for mm in lps)
            hu = get(f"{workspace_service}/v1/jobs/{phantom_study}/volume/hu?lps={at}")["hu"]
            grey = np.clip((hu - center) / width + 0.5, 0, 1) * 255
            assert shown[y, x, 0] == pytest.approx(grey, abs=25)  # smoothing mixes in the neighbours' noise


@pytest.mark.parametrize("button", ["right", "left"])
def test_dragging_changes_the_window_before_a_slab_arrives(reading: Page, button: Literal["left", "right"]):
    if button == "left":
        reading.keyboard.press("c")
    before = picture(reading).mean()
    reading.route("**/volume/slab**", lambda route: None)  # never answered
    box = reading.locator(".plane[data-plane=axial]").bounding_box()
    assert box is not None
    x, y = box["x"] + 300, box["y"] + 300
    reading.mouse.move(x, y)
    reading.mouse.down(button=button)
    reading.mouse.move(x, y - 150, steps=4)
    reading.mouse.up(button=button)
    assert picture(reading).mean() > before + 10
    expect(reading.locator(".plane[data-plane=axial]")).to_have_attribute("data-exact", "false")
    reading.unroute_all(behavior="ignoreErrors")


def test_a_slab_shows_the_maximum_and_inverting_turns_the_grey(reading: Page):
    reading.keyboard.press("b")
    reading.keyboard.press("m")
    reading.keyboard.press("x")
    single = picture(reading)
    reading.get_by_label("Slab thickness").select_option("20")
    wait_for_slices(reading)
    slab = picture(reading)
    assert (slab.astype(int) - single)[..., 0].mean() > 1
    assert np.percentile((single.astype(int) - slab)[..., 0], 99) <= 2
    reading.locator(".plane[data-plane=axial]").focus()
    reading.keyboard.press("i")
    center = tuple(length // 2 for length in slab.shape[:2])
    assert picture(reading)[center][0] == pytest.approx(255 - slab[center][0], abs=1)


def test_zoom_keeps_what_is_under_the_pointer_and_fit_brings_it_back(reading: Page):
    press(reading, "m")  # outlines arrive when they do
    whole = picture(reading)
    reading.locator(".plane[data-plane=axial]").focus()
    press(reading, "+")
    assert not np.array_equal(picture(reading), whole)
    press(reading, "0")
    assert np.array_equal(picture(reading), whole)


@pytest.mark.parametrize("how", ["middle button", "shift", "tool"])
def test_the_picture_is_moved_with_the_pointer_and_so_is_what_lies_on_it(reading: Page, how: str):
    boxed = corners_of_the_box(reading)
    box = reading.locator(".plane[data-plane=axial]").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    if how == "tool":
        reading.get_by_role("button", name="Move the picture").click()
    if how == "shift":
        reading.keyboard.down("Shift")
    button = "middle" if how == "middle button" else "left"
    reading.mouse.move(x, y)
    reading.mouse.down(button=button)
    reading.mouse.move(x + 30, y - 20, steps=3)
    reading.mouse.up(button=button)
    reading.keyboard.up("Shift")
    assert corners_of_the_box(reading) - boxed == pytest.approx(np.array([[-20, 30]] * 2), abs=1)


def test_the_wheel_with_control_enlarges_about_the_pointer(reading: Page):
    """Where the pointer stands the same point of the patient stays; the slice stays, too."""
    z = slice_of(reading)
    box = reading.locator(".plane[data-plane=axial]").bounding_box()
    assert box is not None
    boxed = corners_of_the_box(reading)
    x, y = box["x"] + float(boxed[1, 1]), box["y"] + float(boxed[0, 0])
    reading.mouse.move(x, y)
    under = point_under_the_pointer(reading)
    reading.keyboard.down("Control")
    reading.mouse.wheel(0, -200)
    reading.keyboard.up("Control")
    wait_for_slices(reading)
    # Sideways: the name of the finding, in the same colour above the box, does not grow.
    (left, right), (wide_left, wide_right) = boxed[:, 1], corners_of_the_box(reading)[:, 1]
    assert wide_right - wide_left == pytest.approx((right - left) * np.exp(200 / 300), abs=4)
    assert wide_right == pytest.approx(right, abs=3)
    reading.mouse.move(x + 1, y)
    reading.mouse.move(x, y)
    assert point_under_the_pointer(reading) == pytest.approx(under, abs=0.75)  # one pixel before
    assert slice_of(reading) == z


def test_a_distance_is_measured_in_mm(reading: Page, volume):
    shown = picture(reading)
    scale, origin = fitted(volume, "axial", shown)
    box = reading.locator(".plane[data-plane=axial]").bounding_box()
    assert box is not None
    press(reading, "l")
    ends = [np.array([40.0, 40.0]) * scale + origin, np.array([40.0, 60.0]) * scale + origin]
    reading.mouse.move(box["x"] + ends[0][1], box["y"] + ends[0][0])
    reading.mouse.down()
    reading.mouse.move(box["x"] + ends[1][1], box["y"] + ends[1][0], steps=3)
    reading.mouse.up()
    line = pixels_of(picture(reading), MEASURE)
    y = int(ends[0][0])
    assert line[y - 2 : y + 3].any(axis=0).sum() > 0.9 * (ends[1][1] - ends[0][1])
    said = reading.locator(".measures")
    assert float(re.search(r"([\d.]+) mm", said.inner_text()).group(1)) == pytest.approx(20 * 3.5, abs=1.0)
    press(reading, "Escape")
    expect(said).to_have_text("")


def test_a_distance_is_measured_without_a_pointer(reading: Page, volume):
    reading.locator(".plane[data-plane=axial]").focus()
    press(reading, "l")
    press(reading, "Enter")
    reading.locator(".plane[data-plane=sagittal]").focus()  # its slices are the columns of the axial plane
    for _ in range(8):
        press(reading, "PageDown")
    reading.locator(".plane[data-plane=axial]").focus()
    press(reading, "Enter")
    expect(reading.locator(".measures")).to_have_text(f"{8 * volume['spacing_zyx_mm'][2]:.1f} mm")


def test_the_slice_is_drawn_from_its_outer_edges(reading: Page, volume):
    """Half a voxel around the centres of the outermost pixels: what is drawn over it then lies right."""
    for key in ("x", "5", "i"):
        reading.keyboard.press(key)  # the air around the patient is bright, what is beside the slice is black
    wait_for_slices(reading)
    shown = picture(reading)
    scale, origin = fitted(volume, "axial", shown)
    bright = shown[:, shown.shape[1] // 2, 0] > 100
    edges = np.flatnonzero(bright[1:] != bright[:-1]) + 1
    assert edges[0] == pytest.approx(origin[0] - scale[0] / 2, abs=1)
    assert edges[-1] == pytest.approx(origin[0] + (volume["planes"]["axial"]["rows"] - 0.5) * scale[0], abs=1)


def test_an_explanation_is_drawn_when_it_is_asked_for(reading: Page):
    reading.get_by_role("button", name="Why did the network mark it?").click()
    drawn = reading.get_by_role("img", name=re.compile("red where covering"))
    drawn.wait_for(timeout=60_000)
    reading.wait_for_function("(image) => image.complete && image.naturalWidth > 50", arg=drawn.element_handle())


def test_findings_are_stepped_through_and_the_threshold_hides_them(reading: Page, result):
    assert len(result["nodules"]) >= 2
    press(reading, "n")
    expect(reading.locator(".finding[aria-current]")).to_contain_text("Nodule 2")
    expect(reading.locator("#announcer")).to_contain_text("Nodule 2")
    press(reading, "p")
    expect(reading.locator(".finding[aria-current]")).to_contain_text("Nodule 1")
    slider = reading.get_by_label("Show from a probability of")
    slider.focus()
    slider.press("End")
    expect(reading.locator(".finding:not([data-kind=accepted]):not([data-kind=rejected])")).to_have_count(0)
    assert not pixels_of(picture(reading), np.array([0xF0, 0xE4, 0x42])).any()
    reading.get_by_role("button", name="As reported").click()
    expect(reading.locator(".finding")).to_have_count(len(result["nodules"]))


def test_keys_that_are_typed_into_a_field_do_nothing_else(reading: Page):
    z = slice_of(reading)
    reading.get_by_label("Reader's name").fill("Ada Number 1")
    reading.get_by_label("Reader's name").press("PageDown")
    assert slice_of(reading) == z
    expect(reading.locator(".corner.top.right").first).to_have_text(re.compile(r"^C .600 W 1500"))


def test_the_keys_are_shown_and_the_findings_come_as_text(reading: Page, result):
    reading.keyboard.press("?")
    keys = reading.get_by_role("dialog", name="Keys")
    expect(keys).to_contain_text("Accept the nodule")
    reading.keyboard.press("Escape")
    expect(keys).to_have_count(0)
    reading.get_by_role("button", name="As text").click()
    text = reading.get_by_role("textbox", name="Findings as text").input_value()
    assert f"mean {result['nodules'][0]['diameter_mm']:.1f} mm" in text
    assert "Not for diagnosis" in text


def test_printing_leaves_the_controls_out(reading: Page, screenshots: Path):
    reading.emulate_media(media="print")
    assert not reading.locator(".tools").is_visible()
    assert not reading.locator("#top").is_visible()
    assert reading.locator("#disclaimer").is_visible()
    assert reading.locator(".finding").first.is_visible()
    reading.screenshot(path=screenshots / "reading-print.png", full_page=True)
