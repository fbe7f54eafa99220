"""An installation that asks for a key: the page asks the person, once, and goes on where it was."""

from __future__ import annotations

import json

from playwright.sync_api import Page, Route, expect


def refused(route: Route) -> None:
    body = {"title": "Sign in", "status": 401, "detail": "A key is needed.", "code": "key_missing"}
    route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(body))


def test_a_refused_request_asks_for_a_key_and_is_made_again(page: Page, workspace_service: str):
    """The door is played by the test: this page's part is what is asked, sent and kept."""
    keys: list[tuple[str, str | None]] = []

    def session(route: Route) -> None:
        if route.request.method != "POST":
            return route.fulfill(json={"access": "required", "authenticated": bool(keys), "name": "reader-1"})
        sent = route.request.post_data_json["key"]
        keys.append((sent, route.request.headers.get("x-requested-with")))
        if sent != "right":
            return refused(route)
        page.unroute("**/v1/models")
        return route.fulfill(status=204)

    page.route("**/v1/session", session)
    page.route("**/v1/models", refused)
    page.goto(f"{workspace_service}/workspace/")
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Key").fill("wrong")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).to_contain_text("not known")
    dialog.get_by_label("Key").fill("right")
    dialog.get_by_label("Key").press("Enter")
    page.wait_for_selector(".drop")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".account")).to_contain_text("Signed in as reader-1")
    assert keys == [("wrong", "lungnodule"), ("right", "lungnodule")]
    kept = page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
    assert "right" not in kept
