"""What a person does with the page, and what they see there."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from app.cli.client import multipart

CANARY_PATIENT = "CANARYPATIENT"
CANARY_FILE = "CANARYFILE"
"""Must be found nowhere that outlives the page, and in nothing that is sent but the scan itself."""

Picture = NDArray[np.uint8]
SELECTED = np.array([0xF0, 0xE4, 0x42])
"""Colour of the chosen finding's box."""


def drop(page: Page, selector: str, paths: Sequence[Path]) -> None:
    """Drop files and folders from outside the browser on an element, as a mouse does."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    files = [str(path) for path in paths]
    at = {"x": box["x"] + 20, "y": box["y"] + 20, "data": {"items": [], "files": files, "dragOperationsMask": 1}}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **at})


def open_reading(page: Page, url: str, job: str) -> None:
    """Open a finished study and wait until its three planes show exact slices."""
    page.goto(f"{url}/workspace/#/jobs/{job}")
    wait_for_slices(page)


def wait_for_slices(page: Page) -> None:
    """Until every plane that is shown has the slice it asked for, in the window it asked for, drawn."""
    page.wait_for_selector(".plane[data-exact]", state="attached")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plane')].every((plane) => !plane.checkVisibility() "
        "|| plane.dataset.exact === 'true')"
    )


def picture(page: Page, plane: str = "axial") -> Picture:
    """(rows, columns, 3) what is on the canvas of a plane."""
    # Frames are drawn when the browser is ready for them: two later the last change is on the canvas.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    encoded: str = page.eval_on_selector(
        f".plane[data-plane={plane}] canvas", "(canvas) => canvas.toDataURL('image/png').split(',')[1]"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def fitted(volume: dict[str, Any], plane: str, shown: Picture) -> NDArray[np.float64]:
    """2x2 from (row, column) to canvas (y, x): scale and place of pixel centre (0, 0), for a slice fitted to its place.

    The slice keeps its proportions in mm, is as large as its place allows and lies in the middle of it.
    """
    about = volume["planes"][plane]
    size_mm = np.array([about["rows"] * about["row_spacing_mm"], about["columns"] * about["column_spacing_mm"]])
    place = np.array(shown.shape[:2])
    per_mm = (place / size_mm).min()
    scale = per_mm * np.array([about["row_spacing_mm"], about["column_spacing_mm"]])
    return np.stack([scale, (place - per_mm * size_mm) / 2 + scale / 2])


def place_of(volume: dict[str, Any], plane: str, lps_mm: Sequence[float]) -> NDArray[np.float64]:
    """A point of the patient in a plane's (slice, row, column)."""
    matrix = np.array(volume["planes"][plane]["to_lps_mm"])
    return np.linalg.solve(matrix[:3, :3], np.asarray(lps_mm) - matrix[:3, 3])


def pixels_of(shown: Picture, colour: NDArray[np.int64], tolerance: int = 40) -> NDArray[np.bool_]:
    """Where a picture has a colour, but for smoothing."""
    return np.asarray(np.abs(shown.astype(int) - colour).max(axis=2) <= tolerance)


def get(url: str) -> Any:
    """What the service answers, decoded."""
    with urllib.request.urlopen(url) as answer:
        return json.loads(answer.read())


def finished_job(url: str, files: Sequence[Path], **fields: str) -> str:
    """Send a scan past the page and wait for its end by the service's own events; the job's id."""
    headers, body = multipart(files, fields)
    request = urllib.request.Request(f"{url}/v1/jobs", b"".join(body), headers)
    with urllib.request.urlopen(request) as answer:
        job: str = json.loads(answer.read())["id"]
    with urllib.request.urlopen(f"{url}/v1/jobs/{job}/events", timeout=240) as events:
        events.read()
    status = get(f"{url}/v1/jobs/{job}")
    assert status["state"] == "succeeded", status["problem"]
    return job


def service_settings(store: Path, **more: str) -> dict[str, str]:
    """Environment of a service on these models; ``more`` without the prefix."""
    own = {"MODEL_STORE": str(store), "DEVICE": "cpu", "THREADS": "1"} | more
    return {f"LUNGNODULE_{name}": value for name, value in own.items()}
