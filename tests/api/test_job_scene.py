"""The answer in three dimensions over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec as real_find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.analysed import World, analysed_world, reading_scan, refused
from tests.reporting.gltf import nodes_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[World]:
    with analysed_world(tmp_path_factory.mktemp("scene"), tiny_model_store) as made:
        yield made


@pytest.fixture(scope="module")
def done(world: World) -> str:
    job = world.job(reading_scan())
    world.work()
    return job


def test_a_scene_shows_the_nodules_of_the_answer(world: World, done: str) -> None:
    answer = world.get(done, "scene.glb")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "model/gltf-binary")
    nodes = nodes_of(answer.content)
    nodules = {nodule["id"]: nodule for nodule in world.get(done, "result").json()["nodules"]}
    assert {"lung-left", "lung-right"} <= set(nodes)
    shown = {node.extras["id"]: node for name, node in nodes.items() if name.startswith("nodule-")}
    assert shown.keys() == nodules.keys()
    for nodule_id, node in shown.items():
        box = nodules[nodule_id]["bounding_box"]["lps_mm"]
        middle = (np.array(box["min"]) + np.array(box["max"])) / 2
        ends = node.vertices_lps_mm
        off = np.abs((ends.min(axis=0) + ends.max(axis=0)) / 2 - middle)
        assert (off < np.array([2.5, 2.5, 3.75]) / 2).all()  # half a voxel
        assert node.extras["lps_mm"] == nodules[nodule_id]["center_lps_mm"]


def test_it_is_made_once_for_as_long_as_the_scan_is_open(
    world: World, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.get(done, "scene.glb")
    monkeypatch.setattr("app.api.routes.job_scene.compact_parts", None)  # whoever calls it now fails
    again = world.get(done, "scene.glb")
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]


def test_usdz_is_a_package_and_without_the_extra_that_is_said(
    world: World, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_openusd(name: str) -> Any:
        return None if name == "pxr" else real_find_spec(name)

    with monkeypatch.context() as patched:
        patched.setattr("app.reporting.usdz.find_spec", without_openusd)
        assert refused(world.get(done, "scene.usdz")) == (501, "extra_missing")
    answer = world.get(done, "scene.usdz")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "model/vnd.usdz+zip")
    assert answer.content.startswith(b"PK")


@pytest.mark.parametrize("form", ["glb", "usdz"])
def test_there_is_none_without_an_answer(world: World, form: str) -> None:
    assert refused(world.get("none", f"scene.{form}")) == (404, "unknown_job")
    job = world.job(b"no scan at all")
    assert refused(world.get(job, f"scene.{form}")) == (409, "job_not_finished")
    world.queue.tickets.clear()
    world.client.delete(f"/v1/jobs/{job}/data")
    assert refused(world.get(job, f"scene.{form}")) == (410, "job_erased")
