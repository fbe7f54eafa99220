"""Makes the pictures of docs/workspace.md from a phantom: nothing in them is of a patient.

python -m tests.web.pictures docs/pictures
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from app.cli.client import running_service
from app.phantom import write_phantom
from tests.web.chromium import launch
from tests.web.person import finished_job, open_reading

ROOT = Path(__file__).resolve().parents[2]


def main(folder: Path) -> None:
    """Analyse the phantom of the demo with the repository's model, open it, take its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        write_phantom(Path(scratch), "dicom")
        files = sorted((Path(scratch) / "series").iterdir())
        with running_service({"LUNGNODULE_MODEL_STORE": str(ROOT / "model_store")}) as service:
            job = finished_job(service.url, files)
            page = launch(playwright).new_context(viewport={"width": 1440, "height": 900}).new_page()
            for theme in ("dark", "light"):
                open_reading(page, service.url, job)
                if theme == "light":
                    page.get_by_role("button", name="Light theme").click()
                page.wait_for_function("() => [...document.images].every((image) => image.complete)")
                page.screenshot(path=folder / f"reading-{theme}.jpg", type="jpeg", quality=72)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
