"""The scene in the room, as far as a machine without a phone goes: with a stand-in for `navigator.xr`."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.web.views.worlds import JOB, NODULES_LPS_MM, answering, answers, gltf_from_lps

# Stands where a phone's WebXR would: at (0, 1.5, 0) in the room, looking along -z, through a lens of 60 degrees.
FAKE_XR = """
const rigid = (x, y, z) => ({ matrix: new Float32Array([1,0,0,0, 0,1,0,0, 0,0,1,0, x,y,z,1]) });
const eye = { ...rigid(0, 1.5, 0), inverse: rigid(0, -1.5, 0) };
const f = Math.sqrt(3);
const lens = new Float32Array([f,0,0,0, 0,f,0,0, 0,0,-1.002,-1, 0,0,-0.2002,0]);
class Session extends EventTarget {
  renderState = {};
  callback = null;
  updateRenderState(state) { Object.assign(this.renderState, state); }
  requestReferenceSpace(kind) { this.space = kind; return Promise.resolve({}); }
  requestAnimationFrame(callback) { this.callback = callback; }
  frame() {
    const view = { transform: eye, projectionMatrix: lens };
    this.callback(0, { getViewerPose: () => ({ transform: eye, views: [view] }) });
    const canvas = this.renderState.baseLayer.gl.canvas;
    return canvas.toDataURL("image/png");
  }
  end() { this.dispatchEvent(new Event("end")); return Promise.resolve(); }
}
window.XRWebGLLayer = class {
  constructor(session, gl) { this.gl = gl; this.framebuffer = null; }
  getViewport() { return { x: 0, y: 0, width: 400, height: 400 }; }
};
WebGL2RenderingContext.prototype.makeXRCompatible = () => Promise.resolve();
Object.defineProperty(navigator, "xr", { value: {
  isSessionSupported: (mode) => Promise.resolve(mode === "immersive-ar"),
  requestSession: (mode, options) => {
    window.asked = [mode, options.optionalFeatures];
    window.session = new Session();
    return Promise.resolve(window.session);
  },
} });
"""


def frame(page: Page) -> np.ndarray:
    page.wait_for_function("() => window.session?.callback && window.session.renderState.baseLayer")
    png = base64.b64decode(page.evaluate("() => window.session.frame()").split(",")[1])
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)
    return shown[-400:, :400]


def expected(center_lps_mm: tuple[float, ...], factor: float) -> tuple[int, int]:
    """(row, column): the scene's middle, LPS (0, 0, 0), is a metre ahead at eye level, its front to the viewer."""
    x, y, z = gltf_from_lps(center_lps_mm) * factor
    x, z = -x, -1.0 - z  # half a turn about the vertical
    focal = 200 * np.sqrt(3)
    return round(200 - focal * y / -z), round(200 + focal * x / -z)


def is_orange(pixel: np.ndarray) -> bool:
    return bool(pixel[0] > 100 and pixel[0] > pixel[1] > pixel[2] + 40)


def test_webxr_shows_it_a_metre_ahead_in_life_size_and_twice(page: Page, visit):
    page.add_init_script(FAKE_XR)
    visit(f"jobs/{JOB}/3d", answers())
    page.get_by_role("button", name="Show it in this room").click()
    place, _ = NODULES_LPS_MM["nodule-1"]
    life = frame(page)
    assert page.evaluate("() => window.asked[0]") == "immersive-ar"
    assert is_orange(life[expected(place, 1.0)])
    page.locator(".scene-ar-overlay").get_by_role("button", name="Twice as large").click()
    twice = frame(page)
    assert np.hypot(*np.subtract(expected(place, 2.0), expected(place, 1.0))) > 20
    assert is_orange(twice[expected(place, 2.0)])
    assert not is_orange(twice[expected(place, 1.0)])
    expect(page.locator(".scene-ar-overlay")).to_contain_text("Not for diagnosis")
    page.get_by_role("button", name="End", exact=True).click()
    expect(page.locator(".scene-ar-overlay")).to_be_hidden()


def test_a_phone_that_refuses_is_told(page: Page, visit):
    page.add_init_script(FAKE_XR + "navigator.xr.requestSession = () => Promise.reject(new Error('camera refused'));")
    visit(f"jobs/{JOB}/3d", answers())
    page.get_by_role("button", name="Show it in this room").click()
    expect(page.get_by_role("alert").filter(has_text="camera refused")).to_be_visible()


def test_nothing_is_offered_where_nothing_can_work(visit):
    page = visit(f"jobs/{JOB}/3d", answers())
    page.wait_for_selector(".scene-label:not([hidden])", state="attached")
    page.wait_for_load_state("networkidle")
    expect(page.get_by_text("In your room")).to_have_count(0)


@pytest.mark.parametrize(("access", "offered"), [("off", 1), ("required", 0)])
def test_scene_viewer_is_offered_to_android_where_it_can_fetch_the_file(
    browser: Browser, shell: str, access: str, offered: int
):
    """It is another program: it brings no key and takes no plain http, so the page is served as https."""
    context = browser.new_context(
        user_agent="Mozilla/5.0 (Linux; Android 14; Pixel 8) Chrome/126", ignore_https_errors=True
    )
    page = context.new_page()
    secure = "https://lungs.example/"

    def through(route) -> None:
        route.fulfill(response=route.fetch(url=route.request.url.replace(secure, f"{shell}/")))

    page.route(f"{secure}workspace/**", through)
    given = answers() | {"session": {"access": access, "authenticated": True}}
    with answering(page, given):
        page.goto(f"{secure}workspace/#/jobs/{JOB}/3d")
        page.wait_for_selector(".scene-label:not([hidden])", state="attached")
        page.wait_for_load_state("networkidle")
        link = page.get_by_role("link", name="Open in Scene Viewer")
        expect(link).to_have_count(offered)
        if offered:
            address = link.get_attribute("href")
            assert address is not None
            assert address.startswith(
                "intent://arvr.google.com/scene-viewer/1.0?file=https%3A%2F%2Flungs.example%2Fv1%2F"
            )
            assert "resizable=false" in address
            assert address.endswith(
                "#Intent;scheme=https;package=com.google.android.googlequicksearchbox;action=android.intent.action.VIEW;end;"
            )
    context.close()


def test_quick_look_is_offered_where_the_browser_knows_it_and_there_is_a_file(browser: Browser, shell: str):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("DOMTokenList.prototype.supports = (word) => word === 'ar';")
    secure = "https://lungs.example/"
    page.route(
        f"{secure}workspace/**",
        lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace(secure, f"{shell}/"))),
    )
    with answering(page, answers() | {f"jobs/{JOB}/scene.usdz": b"usdz"}):
        page.goto(f"{secure}workspace/#/jobs/{JOB}/3d")
        link = page.locator("a[rel=ar]")
        expect(link).to_have_attribute("href", f"{secure}v1/jobs/{JOB}/scene.usdz")
        assert link.evaluate("(a) => a.firstElementChild.tagName + a.childNodes.length") == "IMG1"
    context.close()
