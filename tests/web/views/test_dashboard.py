"""The dashboard's numbers are the service's, in the picture and in the table, and stay so."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

FIGURES: dict[str, Any] = {
    "jobs": {
        "by_state": {"queued": 2, "running": 1, "succeeded": 17, "failed": 3},
        "per_day": [
            {"day": "2026-11-27", "succeeded": 4, "failed": 1},
            {"day": "2026-11-28", "succeeded": 6, "failed": 0},
            {"day": "2026-11-29", "succeeded": 7, "failed": 2},
        ],
        "per_hour_now": 3,
    },
    "stages_s": {
        "read": {"median": 1.2, "p90": 2.4, "n": 17}, "detect": {"median": 6.0, "p90": 9.5, "n": 17},
        "characterise": {"median": 0.8, "p90": 1.1, "n": 17},
    },
    "refusals": {"not_ct": 2, "<img src=x onerror=alert(1)>": 1},
    "models": [{"model": "lungnodule:0.2.0", "n": 15}, {"model": "tiny:1.0.0", "n": 2}],
    "findings": {
        "scans": 17,
        "nodules_per_scan": [5, 6, 4, 2],
        "diameter_mm_histogram": {"edges": [0, 4, 6, 8, 15, 30], "counts": [1, 6, 5, 4, 4]},
        "probability_histogram": {"edges": [0, 0.25, 0.5, 0.75, 1], "counts": [4, 5, 5, 6]},
        "malignancy_histogram": {"edges": [0, 0.25, 0.5, 0.75, 1], "counts": [9, 5, 3, 3]},
    },
    "workers": {"alive": 2, "places": 2},
    "queue": {"waiting": 2, "running": 1, "oldest_waiting_s": 4.2},
    "disk": {"scans_bytes": 1073741824, "results_bytes": 0, "free_bytes": 32212254720, "temp_free_bytes": None},
}  # fmt: skip


def chart(page: Page, title: str) -> Locator:
    return page.locator("figure.chart", has=page.locator("figcaption", has_text=title))


def heights(figure: Locator) -> list[float]:
    return figure.locator("rect[fill^=url]:has(title)").evaluate_all(
        "(all) => all.map((one) => Number(one.getAttribute('height')))"
    )


def test_every_number_is_the_services(visit, inspected):
    page: Page = visit("dashboard", {"dashboard": FIGURES})
    expect(chart(page, "Jobs by day")).to_be_visible()
    facts = page.locator(".dashboard-facts > div")
    for label, value in (
        ("Jobs: succeeded", "17"),
        ("Jobs: failed", "3"),
        ("Disk: free", "30.0 GiB"),
        ("Workers: alive", "2"),
    ):
        expect(facts.filter(has=page.get_by_text(label, exact=True)).locator("dd")).to_have_text(value)
    bars = heights(chart(page, "Jobs by day"))
    assert [bar / bars[0] for bar in bars] == pytest.approx([1.0, 6 / 4, 7 / 4, 1 / 4, 2 / 4])
    diameters = heights(chart(page, "Diameters"))
    assert [bar / diameters[0] for bar in diameters] == pytest.approx([1, 6, 5, 4, 4])
    seconds = heights(chart(page, "Seconds in each stage"))
    assert [bar / seconds[0] for bar in seconds] == pytest.approx([1, 5, 0.8 / 1.2, 2, 9.5 / 1.2, 1.1 / 1.2])
    stages = chart(page, "Seconds in each stage")
    stages.get_by_text("The same as a table").click()
    expect(stages.get_by_role("row").nth(2)).to_have_text("Detect69.5")
    inspected("dashboard")


def test_a_code_is_text(visit):
    page: Page = visit("dashboard", {"dashboard": FIGURES})
    refusals = chart(page, "Refusals and failures by code")
    refusals.get_by_text("The same as a table").click()
    expect(refusals.get_by_role("row").nth(2)).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("main img").count() == 0


def test_it_asks_again_after_15_seconds_while_it_is_seen_and_keeps_open_tables(page: Page, visit):
    page.clock.install(time="2026-01-01T00:00:00Z")
    figures = copy.deepcopy(FIGURES)
    asked: list[str] = []

    def answer(address: str) -> dict[str, Any]:
        asked.append(address)
        return figures

    visit("dashboard", {"dashboard": answer})
    table = chart(page, "Jobs by day")
    table.get_by_text("The same as a table").click()
    page.clock.pause_at("2026-01-01T01:00:00Z")  # from here on time stands but for what the test lets pass
    expect(page.get_by_role("status").first).to_contain_text("asked again")
    before = len(asked)
    figures["jobs"]["per_day"][2]["succeeded"] = 8
    page.clock.run_for(15_000)
    expect(table.get_by_role("row").nth(3)).to_have_text("11-2982")
    assert len(asked) == before + 1
    page.evaluate("() => Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true })")
    page.clock.run_for(60_000)
    assert len(asked) == before + 1
    page.evaluate("() => { location.hash = '#/'; }")
    expect(page.locator("figure")).to_have_count(0)
    page.evaluate("() => { delete document.visibilityState; }")
    page.clock.run_for(60_000)
    assert len(asked) == before + 1


def test_another_span_is_asked_for(visit):
    asked: list[str] = []
    page: Page = visit("dashboard", {"dashboard": lambda address: asked.append(address) or FIGURES})
    expect(chart(page, "Jobs by day")).to_be_visible()
    page.get_by_label("Show").select_option(label="the last 7 days")
    expect(page.locator("#announcer")).to_have_text("the last 7 days")
    assert [address.split("?")[1] for address in asked] == ["days=30", "days=7"]


def test_an_empty_service_has_an_empty_dashboard(visit):
    empty = {
        "jobs": {"by_state": {}, "per_day": [], "per_hour_now": 0}, "stages_s": {}, "refusals": {}, "models": [],
        "findings": {
            "scans": 0, "nodules_per_scan": [],
            **{name: {"edges": [], "counts": []} for name in FIGURES["findings"] if name.endswith("histogram")},
        },
        "workers": {}, "queue": {}, "disk": {},
    }  # fmt: skip
    page: Page = visit("dashboard", {"dashboard": empty})
    expect(chart(page, "Answers by model")).to_contain_text("Nothing to show in this time.")


def test_a_refusal_is_told(visit):
    page: Page = visit("dashboard", {"dashboard": (503, {"detail": "The database is away."})})
    expect(page.get_by_role("status").first).to_contain_text("The database is away.")


def test_who_may_not_see_it_is_told_whose_it_is_and_not_asked_for_again(page: Page, visit):
    page.clock.install(time="2026-01-01T00:00:00Z")
    asked: list[str] = []
    refusal = (403, {"detail": "This needs the role operate.", "code": "role_missing"})
    visit("dashboard", {"dashboard": lambda address: asked.append(address) or refusal})
    expect(page.get_by_role("status").first).to_contain_text("those who run the installation")
    page.clock.run_for(60_000)
    assert len(asked) == 1
