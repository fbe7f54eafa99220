"""The page for the person who was scanned: plain words that neither frighten nor promise, no probabilities."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.web.views.worlds import JOB, NODULES_LPS_MM, answers

FORBIDDEN = re.compile(
    r"cancer|malign|benign|tumou?r|carcinom|metasta|probab|likel|risk|sensitiv|threshold|score|lung-?rads|fleischner|brock|"
    r"nelson|\bsuspic|healthy|normal|all clear|nothing to worry|don.t worry|do not worry|harmless|safe|certain|"
    r"guarantee|dangerous|serious|death|\d\s?%|\bper ?cent",
    re.IGNORECASE,
)


def text_of(page: Page) -> str:
    expect(page.get_by_role("heading", name="Who to ask")).to_be_visible()
    return page.locator("main").inner_text()


@pytest.mark.parametrize("nodules", [NODULES_LPS_MM, {}, {"nodule-1": ((0.0, 0.0, 0.0), 40.0)}], ids=len)
def test_no_word_frightens_or_promises_and_no_probability_is_told(visit, nodules):
    text = text_of(visit(f"jobs/{JOB}/patient", answers(nodules)))
    assert FORBIDDEN.search(text) is None, FORBIDDEN.search(text)
    assert "Not for diagnosis" in text
    assert "nodule-" not in text


def test_sentences_are_short(visit):
    text = text_of(visit(f"jobs/{JOB}/patient", answers()))
    sentences = [sentence.split() for sentence in re.split(r"[.?!:\n]+", text) if sentence.strip()]
    assert max(map(len, sentences)) <= 22
    assert sum(map(len, sentences)) / len(sentences) < 10


def test_it_says_where_and_how_large_in_things_of_everyday_life(visit, inspected):
    sized = {"nodule-1": ((-70.0, 0.0, 50.0), 7.6), "nodule-2": ((70.0, 0.0, -50.0), 20.2)}
    page = visit(f"jobs/{JOB}/patient", answers(sized))
    page.wait_for_selector(".scene-label:not([hidden])", state="attached")
    marks = page.locator(".patient-marks li")
    expect(marks.nth(0)).to_contain_text("Right lung, upper part. About 8 mm across, about as wide as a pea.")
    expect(marks.nth(1)).to_contain_text("Left lung, lower part. About 20 mm across, about as wide as a grape.")
    expect(page.locator("main")).to_contain_text("The program marked 2 places.")
    expect(page.locator("main")).to_contain_text("133 pictures")
    inspected("patient")


def test_no_mark_is_not_called_health(visit):
    page = visit(f"jobs/{JOB}/patient", answers({}))
    expect(page.locator("main")).to_contain_text("The program marked nothing.")
    expect(page.locator("main")).to_contain_text("does not tell you that nothing is there")


def test_what_a_person_rejected_is_not_told_and_what_they_added_is(visit):
    review = {
        "reviewer": "R", "decisions": [{"nodule_id": "nodule-1", "decision": "rejected", "note": ""}],
        "added": [{"center_lps_mm": [0, 0, 0], "diameter_mm": 12.0, "note": ""}], "finished": True,
    }  # fmt: skip
    page = visit(f"jobs/{JOB}/patient", answers() | {f"jobs/{JOB}/review": review})
    page.wait_for_selector(".scene-label:not([hidden])", state="attached")
    marks = page.locator(".patient-marks li")
    expect(marks).to_have_count(2)
    expect(marks.nth(0)).to_contain_text("Left lung")
    expect(marks.nth(1)).to_contain_text("Marked by the person who checked the scan. About 12 mm")
    expect(page.locator(".scene-label")).to_have_count(1)


def test_an_unfinished_review_changes_nothing(visit):
    review = {"decisions": [{"nodule_id": "nodule-1", "decision": "rejected"}], "added": [], "finished": False}
    page = visit(f"jobs/{JOB}/patient", answers() | {f"jobs/{JOB}/review": review})
    expect(page.locator(".patient-marks li")).to_have_count(2)


def test_on_paper_there_is_a_still_picture_and_no_button(visit):
    page = visit(f"jobs/{JOB}/patient", answers())
    page.wait_for_selector(".scene-label:not([hidden])", state="attached")
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    expect(page.locator(".patient-still")).to_be_visible()
    expect(page.locator("canvas")).to_be_hidden()
    expect(page.get_by_role("button", name="Print this page")).to_be_hidden()
    shown = page.locator(".patient-still").evaluate(
        """async (img) => {
          await img.decode();
          const flat = document.createElement("canvas");
          [flat.width, flat.height] = [img.naturalWidth, img.naturalHeight];
          const pen = flat.getContext("2d");
          pen.drawImage(img, 0, 0);
          const { data } = pen.getImageData(0, 0, flat.width, flat.height);
          let orange = 0;
          for (let at = 0; at < data.length; at += 4) {
            if (data[at] > 150 && data[at + 1] > 90 && data[at + 1] < data[at] && data[at + 2] < 60) orange++;
          }
          return orange;
        }"""
    )
    assert shown > 50, "the nodule is in the still picture"
