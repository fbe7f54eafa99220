"""The model page shows the manifest's figures, the curve where it was measured, and the reports."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.api.model_documents import froc_of
from app.inference.manifest import load_manifest
from tests.web.views.worlds import EXAMPLE

FOLDER = EXAMPLE.parents[3] / "model_store/lungnodule/0.2.0"
PATH = "models/lungnodule/0.2.0"
PICTURE = (FOLDER / "reports/activations.png").read_bytes()


@pytest.fixture
def given() -> dict[str, Any]:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    reports = [
        {"name": "activations.png", "title": "Activation study", "media_type": "image/png", "size": len(PICTURE)},
        {"name": "evaluation.html", "title": "Evaluation", "media_type": "text/html", "size": 702716},
    ]
    identity = {"name": "lungnodule", "version": "0.2.0", "sha256": "ab" * 32, "state": "active"}
    return {
        PATH: {**identity, "intended_use": manifest["intended_use"], "manifest": manifest},
        f"{PATH}/card": (FOLDER / "MODEL_CARD.md").read_text(),
        f"{PATH}/froc": froc_of(load_manifest(FOLDER)).model_dump(mode="json"),
        f"{PATH}/reports": {"reports": reports},
        f"{PATH}/reports/activations.png": (PICTURE, {"content-type": "image/png"}),
    }


def test_the_card_the_curve_the_points_and_the_reports(visit, given: dict[str, Any], inspected):
    page: Page = visit(PATH, given)
    expect(page.get_by_role("heading", name="Model lungnodule 0.2.0")).to_be_visible()
    expect(page.locator("main")).to_contain_text("Research use only, not for diagnosis")
    manifest = given[PATH]["manifest"]
    for name, point in manifest["operating_points"].items():
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name))
        expect(row).to_contain_text(f"{point['threshold']:.4f}")
        expect(row).to_contain_text(f"{point['sensitivity']:.3f}")
    expect(page.get_by_role("rowheader", name="(default)")).to_contain_text(manifest["default_operating_point"])
    assert page.locator(".model-card table").count() > 3
    page.locator(".model-reports img").scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.model-reports img').naturalWidth > 0")
    inspected("model")


def test_the_curve_is_the_manifests(visit, given: dict[str, Any]):
    page: Page = visit(PATH, given)
    points = given[f"{PATH}/froc"]["points"]
    assert len(points) == 7
    chart = page.locator("figure.chart")
    drawn = [tuple(map(float, at.split(","))) for at in chart.locator("polyline").get_attribute("points").split()]
    top, bottom = drawn[-1][1], drawn[0][1]
    for (x, y), point in zip(drawn, points, strict=True):
        share = (point["sensitivity"] - points[0]["sensitivity"]) / (
            points[-1]["sensitivity"] - points[0]["sensitivity"]
        )
        assert y == pytest.approx(bottom + share * (top - bottom))
        along = (x - drawn[0][0]) / (drawn[-1][0] - drawn[0][0])
        assert along == pytest.approx(points.index(point) / 6), "each doubling is a step of the same width"
    chart.get_by_text("The same as a table").click()
    rows = chart.locator("tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.nth(3)).to_have_text(re.compile(r"^10\.750\.683 . 0\.833$"))


def test_a_model_without_card_curve_or_reports_says_so(visit, given: dict[str, Any]):
    page: Page = visit(PATH, {PATH: given[PATH]})
    for said in ("The model has no card.", "holds no such curve", "There are none."):
        expect(page.locator("main")).to_contain_text(said)


def test_an_unknown_model_is_named_as_such(visit):
    page: Page = visit(PATH, {PATH: (404, {"detail": "No model fits."})})
    expect(page.get_by_role("alert")).to_have_text("No model fits.")
