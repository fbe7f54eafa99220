"""The 3-D view draws what the GLB holds where a camera of our own arithmetic says, turns, cuts and fades it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from tests.web.views.worlds import JOB, LUNGS_LPS_MM, NODULES_LPS_MM, answers, gltf_from_lps

ORANGE, BLUE = np.array([0xE6, 0x9F, 0x00]), np.array([0x56, 0xB4, 0xE9])
STEP = np.pi / 36
CENTERS = {name: center for name, (center, _) in NODULES_LPS_MM.items()}


@pytest.fixture
def scene(visit) -> Page:
    """The 3-D view of the known scene, drawn."""
    page = visit(f"jobs/{JOB}/3d", answers())
    page.wait_for_selector(".scene-label:not([hidden])", state="attached")
    return page


def picture(page: Page) -> NDArray[np.int64]:
    """Pixels of the canvas alone as it is shown, (row, column, 3)."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    page.locator(".scene-labels").evaluate("(element) => { element.style.visibility = 'hidden'; }")
    shot = page.screenshot(clip={"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]})
    page.locator(".scene-labels").evaluate("(element) => { element.style.visibility = ''; }")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=np.int64)


def projected(page: Page, lps_mm: tuple[float, ...], yaw: float = 0.0, pitch: float = 0.0) -> tuple[int, int]:
    """(row, column) of a point by a pinhole camera of 30 degrees: what the view promises, and nothing it computes."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    corners = [
        gltf_from_lps(np.array(center) + sign * np.array(radii))
        for center, radii in LUNGS_LPS_MM.values()
        for sign in (-1, 1)
    ]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    distance = float(np.linalg.norm(high - low)) / 2 / np.sin(np.pi / 12) / 1.15
    c, s = np.cos(np.pi + yaw), np.sin(np.pi + yaw)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    x, y, z = about_x @ about_y @ (gltf_from_lps(lps_mm) - (low + high) / 2) - (0, 0, distance)
    focal = box["height"] / 2 / np.tan(np.pi / 12)
    return round(box["height"] / 2 - focal * y / -z), round(box["width"] / 2 + focal * x / -z)


def has_hue(pixel: NDArray[np.int64], color: NDArray[np.int64]) -> bool:
    """Whether the pixel is that colour, lighter or darker, seen through glass."""
    shown, wanted = pixel - pixel.mean(), color - color.mean()
    alike = float(shown @ wanted / (np.linalg.norm(shown) * np.linalg.norm(wanted) + 1e-9))
    return alike > 0.97 and int(np.ptp(pixel)) > 40


def slide(page: Page, label: str, value: int) -> None:
    page.get_by_label(label).fill(str(value))


def test_nodules_are_drawn_where_they_are(scene: Page, inspected):
    shown = picture(scene)
    assert has_hue(shown[projected(scene, CENTERS["nodule-1"])], ORANGE)
    assert has_hue(shown[projected(scene, CENTERS["nodule-2"])], BLUE)
    _, column = projected(scene, CENTERS["nodule-1"])
    assert column < shown.shape[1] / 2, "the patient's right is on the left, as when one stands before the patient"
    inspected("scene")


def test_the_label_stands_at_its_nodule(scene: Page):
    row, column = projected(scene, CENTERS["nodule-1"])
    box = scene.locator("canvas").bounding_box()
    label = scene.locator(".scene-label", has_text="A").bounding_box()
    assert 0 < label["x"] - box["x"] - column < 40
    assert abs(label["y"] - box["y"] - row) < 50


def test_turning_moves_them_as_the_matrix_says(scene: Page):
    before = projected(scene, CENTERS["nodule-1"])
    scene.locator("canvas").focus()
    for _ in range(6):
        scene.keyboard.press("ArrowRight")
    for _ in range(2):
        scene.keyboard.press("ArrowDown")
    after = projected(scene, CENTERS["nodule-1"], 6 * STEP, 2 * STEP)
    assert np.hypot(*np.subtract(after, before)) > 25
    shown = picture(scene)
    assert has_hue(shown[after], ORANGE)
    assert not has_hue(shown[before], ORANGE)
    scene.keyboard.press("Home")
    assert has_hue(picture(scene)[before], ORANGE)


def test_dragging_turns_as_far_as_the_hand_moves(scene: Page):
    box = scene.locator("canvas").bounding_box()
    scene.mouse.move(box["x"] + 20, box["y"] + 20)
    scene.mouse.down()
    scene.mouse.move(box["x"] + 20 + box["height"] / 6, box["y"] + 20, steps=4)
    scene.mouse.up()
    assert has_hue(picture(scene)[projected(scene, CENTERS["nodule-1"], np.pi / 6)], ORANGE)


@pytest.mark.parametrize(
    ("name", "yaw", "pitch"), [("Left side", -np.pi / 2, 0.0), ("Top", 0.0, np.pi / 2 - 0.001), ("Front", 0.0, 0.0)]
)
def test_the_fixed_views_look_from_where_they_say(scene: Page, name: str, yaw: float, pitch: float):
    scene.keyboard.press("ArrowRight")
    scene.get_by_role("button", name=name).click()
    slide(scene, "Lungs and airways: faint to dense", 0)
    assert has_hue(picture(scene)[projected(scene, CENTERS["nodule-2"], yaw, pitch)], BLUE)


def test_the_cut_takes_away_what_lies_before_it(scene: Page):
    """nodule-1 lies 40 mm before the middle, nodule-2 30 mm behind it: half of the way takes the first alone."""
    slide(scene, "How much is cut away", 50)
    shown = picture(scene)
    assert not has_hue(shown[projected(scene, CENTERS["nodule-1"])], ORANGE)
    assert has_hue(shown[projected(scene, CENTERS["nodule-2"])], BLUE)
    expect(scene.locator(".scene-label", has_text="A")).to_be_hidden()
    scene.get_by_label("Cut away from").select_option("head")
    slide(scene, "How much is cut away", 30)
    shown = picture(scene)
    assert not has_hue(shown[projected(scene, CENTERS["nodule-1"])], ORANGE)
    assert has_hue(shown[projected(scene, CENTERS["nodule-2"])], BLUE)


def test_fading_changes_the_lungs_and_leaves_the_nodules(scene: Page):
    lung = projected(scene, (-70.0, 0.0, -60.0))
    ground = picture(scene)[5, 5]
    brightness = []
    for share in (0, 40, 100):
        slide(scene, "Lungs and airways: faint to dense", share)
        shown = picture(scene)
        brightness.append(int(shown[lung].sum()))
        assert has_hue(shown[projected(scene, CENTERS["nodule-2"])], BLUE) or share == 100
    assert brightness[0] == ground.sum()
    assert brightness[0] + 30 < brightness[1] < brightness[2] - 30


def test_parts_can_be_hidden_and_reset_brings_all_back(scene: Page):
    place = projected(scene, CENTERS["nodule-1"])
    lung = projected(scene, (-70.0, 0.0, -60.0))
    before = picture(scene)
    scene.get_by_role("checkbox", name="Nodules").uncheck()
    scene.get_by_label("Right lung").uncheck()
    shown = picture(scene)
    assert not has_hue(shown[place], ORANGE)
    assert (shown[lung] == before[5, 5]).all()
    scene.get_by_role("button", name="Reset").click()
    assert np.array_equal(picture(scene)[place], before[place])
    expect(scene.get_by_label("Right lung")).to_be_checked()


def test_a_click_on_a_nodule_chooses_it_and_links_to_the_reading(scene: Page):
    row, column = projected(scene, CENTERS["nodule-2"])
    scene.locator("canvas").click(position={"x": column, "y": row})
    expect(scene.get_by_role("button", name="nodule-2")).to_have_attribute("aria-pressed", "true")
    expect(scene.locator("#announcer")).to_have_text("nodule-2 is chosen. Left lung, lower part.")
    link = scene.get_by_role("link", name="Read nodule-2 in the slices")
    assert link.get_attribute("href") == f"#/jobs/{JOB}?nodule=nodule-2"
    scene.locator("canvas").click(position={"x": 5, "y": 5})
    expect(scene.get_by_role("button", name="nodule-2")).to_have_attribute("aria-pressed", "false")


def test_the_list_says_in_words_what_is_where(scene: Page):
    first = scene.locator(".scene-nodules li").nth(0)
    expect(first).to_contain_text("Right lung, upper part; towards the front, towards the head of the lungs.")
    expect(scene.locator(".scene-nodules li").nth(1)).to_contain_text("Left lung, lower part; towards the back")


def test_without_webgl_there_is_a_message_and_the_list(visit, page: Page):
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    visit(f"jobs/{JOB}/3d", answers())
    expect(page.get_by_role("alert")).to_contain_text("cannot draw in 3-D")
    expect(page.locator(".scene-nodules li")).to_have_count(2)


@pytest.mark.parametrize(
    ("glb", "said"), [(b"no glb at all, but long enough", "not a GLB"), ((503, {"detail": "Not there."}), "Not there.")]
)
def test_a_scene_that_cannot_be_had_is_said(visit, glb, said: str):
    page = visit(f"jobs/{JOB}/3d", answers() | {f"jobs/{JOB}/scene.glb": glb})
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.locator(".scene-nodules li")).to_have_count(2)


def test_the_address_can_choose_a_nodule(visit):
    page = visit(f"jobs/{JOB}/3d?nodule=nodule-2", answers())
    expect(page.get_by_role("button", name="nodule-2")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="nodule-1")).to_have_attribute("aria-pressed", "false")
