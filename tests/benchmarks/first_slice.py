"""How soon a person sees a slice: from opening a reading to a drawn picture, in the system's Chromium.

    python -m tests.benchmarks.first_slice [--scan ../shared/data/ct/LIDC-IDRI-0001.zip] [--runs 5]

`opened`: the service has the scan open, as it is after the page has followed the job to its end. `not opened`: the
service was started anew and reads the scan from its store first. `next slice`: from a key to the exact slice drawn,
for 20 slices in a row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from app.cli.client import running_service
from tests.benchmarks.machine import described
from tests.benchmarks.measuring import ROOT
from tests.web.chromium import launch
from tests.web.person import finished_job

_OPEN = """(job) => new Promise((done) => {
  const began = performance.now();
  location.hash = `#/jobs/${job}`;
  const look = () => {
    const plane = document.querySelector(".plane[data-plane=axial]");
    const isDrawn = plane && plane.dataset.slice !== undefined && !plane.hasAttribute("data-waiting");
    if (isDrawn) done(performance.now() - began); else requestAnimationFrame(look);
  };
  look();
})"""
_STEP = """() => new Promise((done) => {
  const plane = document.querySelector(".plane[data-plane=axial]");
  const before = plane.dataset.slice;
  const began = performance.now();
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "PageDown", bubbles: true }));
  const look = () => {
    const isThere = plane.dataset.slice !== before && plane.dataset.exact === "true";
    if (isThere) done(performance.now() - began); else requestAnimationFrame(look);
  };
  look();
})"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, default=ROOT.parent / "shared/data/ct/LIDC-IDRI-0001.zip")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as data_dir, sync_playwright() as playwright:
        found = measured(launch(playwright), options.scan, Path(data_dir), options.runs)
    print(json.dumps({"machine": described(), "scan": options.scan.name, "milliseconds": found}, indent=2))


def measured(browser: Browser, scan: Path, data_dir: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run, by name."""
    settings = {"LUNGNODULE_MODEL_STORE": str(ROOT / "model_store"), "LUNGNODULE_DATA_DIR": str(data_dir)}
    settings["LUNGNODULE_LOG_LEVEL"] = "warning"
    with running_service(settings) as service:
        job = finished_job(service.url, [scan])
    found: dict[str, list[float]] = {"not opened": [], "opened": [], "next slice": []}
    for _ in range(runs):
        with running_service(settings) as service:
            found["not opened"].append(_opened(browser, service.url, job)[0])
            milliseconds, page = _opened(browser, service.url, job)
            found["opened"].append(milliseconds)
            found["next slice"].append(statistics.median(float(page.evaluate(_STEP)) for _ in range(20)))
            page.context.close()
    return {name: [round(one, 1) for one in times] for name, times in found.items()}


def _opened(browser: Browser, url: str, job: str) -> tuple[float, Page]:
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(f"{url}/workspace/")
    page.wait_for_selector(".drop")
    return float(page.evaluate(_OPEN, job)), page


if __name__ == "__main__":
    main()
