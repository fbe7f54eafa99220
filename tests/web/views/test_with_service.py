"""The views on the real service: a phantom with three nodules, analysed by the tiny model."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from app.cli.client import multipart
from tests.api.analysed import reading_phantom, zipped_series
from tests.web.person import get, place_of
from tests.web.views.worlds import SHOTS, gltf_from_lps

GUIDE = (Path(__file__).resolve().parents[3] / "docs/workspace-3d.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def analysed(workspace_service: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Id and result of a job of the service."""
    folder = tmp_path_factory.mktemp("scan")
    packed = folder / "scan.zip"
    packed.write_bytes(zipped_series(reading_phantom().volume, folder / "slices"))
    headers, body = multipart([packed])
    with urlopen(Request(f"{workspace_service}/v1/jobs", b"".join(body), headers), timeout=60) as sent:
        job = json.load(sent)["id"]
    with urlopen(f"{workspace_service}/v1/jobs/{job}/events", timeout=240) as events:
        events.read()
    with urlopen(f"{workspace_service}/v1/jobs/{job}/result", timeout=60) as answer:
        return job, json.load(answer)


def test_the_service_scene_is_drawn_with_each_nodule_where_the_answer_says(
    page: Page, workspace_service: str, analysed: tuple[str, dict[str, Any]]
):
    job, result = analysed
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{workspace_service}/workspace/#/jobs/{job}/3d")
    page.wait_for_selector(".scene-label:not([hidden])", state="attached", timeout=60_000)
    expect(page.locator(".scene-label:not([hidden])")).to_have_count(len(result["nodules"]))
    parts = page.evaluate(
        """async ([name, address]) => {
          const { readGlb } = await import(name);
          const parts = readGlb(await (await fetch(address)).arrayBuffer());
          return parts.map(({ name, extras, min, max }) => ({ name, extras, min, max }));
        }""",
        [f"{workspace_service}/workspace/static/scene/glb.js", f"{workspace_service}/v1/jobs/{job}/scene.glb"],
    )
    assert {"lung-left", "lung-right"} < {part["name"] for part in parts}
    by_id = {part["extras"]["id"]: part for part in parts if part["name"].startswith("nodule-")}
    assert len(by_id) == len(result["nodules"]) == 3
    for nodule in result["nodules"]:
        part = by_id[nodule["id"]]
        middle = (np.array(part["min"]) + np.array(part["max"])) / 2
        distance_mm = 1000 * np.linalg.norm(middle - gltf_from_lps(nodule["center_lps_mm"]))
        assert distance_mm < nodule["diameter_mm"] / 2
    right = next(part for part in parts if part["name"] == "lung-right")
    assert right["min"][0] + right["max"][0] > 0, "the patient's right is +x"
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "scene-of-the-service.png")
    assert [url for url in asked if not url.startswith((f"{workspace_service}/", "data:", "blob:"))] == []


def test_the_link_beside_a_nodule_opens_the_reading_at_it(
    page: Page, workspace_service: str, analysed: tuple[str, dict[str, Any]]
):
    job, result = analysed
    page.goto(f"{workspace_service}/workspace/#/jobs/{job}/3d")
    page.get_by_role("link", name="Read nodule-3 in the slices").click()
    expect(page.locator(".finding[aria-current]")).to_have_attribute("data-finding", "nodule-3")
    volume = get(f"{workspace_service}/v1/jobs/{job}/volume")
    slice_z = round(place_of(volume, "axial", result["nodules"][2]["center_lps_mm"])[0])
    expect(page.locator(".plane[data-plane=axial]")).to_have_attribute("data-slice", str(slice_z))


def test_the_page_for_the_patient_stands_on_the_services_answer(
    page: Page, workspace_service: str, analysed: tuple[str, dict[str, Any]]
):
    job, result = analysed
    page.goto(f"{workspace_service}/workspace/#/jobs/{job}/patient")
    expect(page.locator(".patient-marks li")).to_have_count(len(result["nodules"]))
    expect(page.locator(".patient-picture")).to_be_visible(timeout=60_000)


def test_the_dashboard_shows_the_numbers_that_the_service_gives(
    page: Page, workspace_service: str, analysed: tuple[str, dict[str, Any]]
):
    _, result = analysed
    with page.expect_response("**/v1/dashboard?days=30") as answered:
        page.goto(f"{workspace_service}/workspace/#/dashboard")
    told = answered.value.json()
    assert answered.value.status == 200, told
    assert told["findings"]["scans"] >= 1
    facts = page.locator(".dashboard-facts > div")
    for label, value in (
        ("Jobs: succeeded", told["jobs"]["by_state"]["succeeded"]),
        ("Scans with an answer", told["findings"]["scans"]),
        ("Workers: alive", told["workers"]["alive"]),
    ):
        expect(facts.filter(has=page.get_by_text(label, exact=True)).locator("dd")).to_have_text(str(value))
    stages = page.locator("figure.chart", has=page.locator("figcaption", has_text="Seconds in each stage"))
    stages.get_by_text("The same as a table").click()
    expect(stages.locator("tbody tr")).to_have_count(len(told["stages_s"]))
    expect(stages.locator("tbody tr").filter(has_text="Detect")).to_contain_text(
        f"{told['stages_s']['detect']['median']:.3g}"
    )
    sizes = page.locator("figure.chart", has=page.locator("figcaption", has_text="Diameters"))
    sizes.get_by_text("The same as a table").click()
    shown = sum(int(count) for count in sizes.locator("tbody td").all_inner_texts())
    assert shown == sum(told["findings"]["diameter_mm_histogram"]["counts"]) >= len(result["nodules"])


def test_the_command_of_the_guide_fetches_the_scene(
    workspace_service: str, analysed: tuple[str, dict[str, Any]], tmp_path: Path
):
    (command,) = re.findall(r"<!-- run -->\n```bash\n(.*?)```", GUIDE, re.DOTALL)
    text = command.replace("http://127.0.0.1:8000", workspace_service)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=tmp_path, env=os.environ | {"ID": analysed[0]}, check=True
    )
    assert (tmp_path / "scene.glb").read_bytes().startswith(b"glTF")
