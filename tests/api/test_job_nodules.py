"""Outlines, thumbnails and candidates over HTTP, of a scan that real networks have looked at."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from app.imaging.planes import PLANES, PlaneName
from app.reporting.bundle import unpack
from tests.api.analysed import World, analysed_world, reading_scan, refused
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # A detector that lets much through, so that there is something to doubt.
    store = tmp_path_factory.mktemp("store")
    write_tiny_model(store, changes={"detector.score_threshold": 0.02})
    with analysed_world(tmp_path_factory.mktemp("nodules"), store) as made:
        yield made


@pytest.fixture(scope="module")
def scan() -> bytes:
    return reading_scan()


@pytest.fixture(scope="module")
def done(world: World, scan: bytes) -> str:
    job = world.job(scan)
    world.work()
    return job


@pytest.mark.parametrize("plane", PLANES)
def test_an_outline_surrounds_its_nodule(world: World, done: str, plane: PlaneName) -> None:
    to_lps_mm = np.array(world.get(done, "volume").json()["planes"][plane]["to_lps_mm"])
    outlines = world.get(done, "outlines").json()["nodules"]
    nodules = world.get(done, "result").json()["nodules"]
    assert {nodule["id"] for nodule in nodules} == set(outlines)
    assert len(nodules) >= 2
    for nodule in nodules:
        lines = outlines[nodule["id"]][plane]
        corners = np.array([(number, row, column, 1.0) for number, line in lines for row, column in line])
        places = (corners @ to_lps_mm.T)[:, :3]
        low, high = np.array(nodule["bounding_box"]["lps_mm"]["min"]), np.array(nodule["bounding_box"]["lps_mm"]["max"])
        voxel_mm = np.array([2.5, 2.5, 3.75])
        assert (places >= low - voxel_mm).all()
        assert (places <= high + voxel_mm).all()
        assert np.allclose((places.max(axis=0) + places.min(axis=0)) / 2, (low + high) / 2, atol=3.75)


@pytest.mark.parametrize("plane", PLANES)
def test_a_thumbnail_has_the_nodule_in_its_middle(world: World, done: str, plane: PlaneName) -> None:
    answer = world.get(done, "nodules/nodule-1/thumbnail.png", plane=plane, size=96)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    picture = np.asarray(Image.open(io.BytesIO(answer.content))).astype(float)
    assert picture.shape == (96, 96)
    middle = picture[44:52, 44:52].mean()
    ring = [picture[48, 20], picture[48, 76], picture[20, 48], picture[76, 48]]
    assert middle > 180 > np.median(ring)


def test_hostile_thumbnails(world: World, done: str) -> None:
    for params in ({"size": 0}, {"size": 100_000}, {"plane": "x"}, {"width": 0}):
        assert refused(world.get(done, "nodules/nodule-1/thumbnail.png", **params)) == (422, "invalid_request")
    assert refused(world.get(done, "nodules/nodule-99/thumbnail.png")) == (404, "unknown_nodule")


def test_candidates_below_the_threshold_are_told_apart(world: World, done: str) -> None:
    told = world.get(done, "candidates").json()
    nodules = world.get(done, "result").json()["nodules"]
    reported = [one for one in told["candidates"] if one["reported"]]
    faint = [one for one in told["candidates"] if not one["reported"]]
    assert [(one["id"], one["probability"]) for one in reported] == [(n["id"], n["probability"]) for n in nodules]
    assert all(one["probability"] >= told["threshold"] for one in reported)
    assert faint, "the tiny model doubts some places of this phantom"
    assert all(told["lowest"] <= one["probability"] < told["threshold"] for one in faint)
    assert [one["probability"] for one in faint] == sorted((one["probability"] for one in faint), reverse=True)
    assert len(faint) <= 100
    for one in faint:  # no place twice
        for nodule in nodules:
            apart = np.linalg.norm(np.subtract(one["center_lps_mm"], nodule["center_lps_mm"]))
            assert apart >= nodule["diameter_mm"] / 2
    assert [point["name"] for point in told["curve"]] == ["sensitive", "balanced", "none"]
    assert told["measured_on"] is None
    assert "faint" not in world.get(done, "result").text


def test_the_faint_are_those_that_a_lower_threshold_would_report(world: World, done: str, scan: bytes) -> None:
    lower = world.job(scan, operating_point="sensitive")
    world.work()
    told = {tuple(one["center_lps_mm"]): one for one in world.get(lower, "candidates").json()["candidates"]}
    before = world.get(done, "candidates").json()["candidates"]
    found = [one["probability"] for one in told.values() if one["reported"]]
    wanted = [one["probability"] for one in before if one["probability"] >= 0.1]
    # Once they are outlined, two of them may turn out to be one nodule, which is then reported once.
    assert set(found) <= set(wanted)
    assert len(found) >= 0.8 * len(wanted) > len([one for one in before if one["reported"]])


def test_an_answer_stored_before_there_were_any(world: World, done: str, scan: bytes) -> None:
    job = world.job(scan, allow_repairs="missing_slices")
    world.work()
    kept = world.jobs.lookup.job(job).result
    assert kept is not None
    (path,) = (world.jobs.settings.data_dir / "results" / job).glob("*result.json")
    older = _without_faint(path.read_bytes())
    assert unpack(older).findings.faint == ()
    stored = world.jobs.store.keep_result(job, 1, older)
    import sqlalchemy as sa  # noqa: PLC0415

    from app.jobs.tables import jobs  # noqa: PLC0415

    with world.jobs.database.transaction() as connection:
        connection.execute(
            sa.update(jobs).where(jobs.c.id == job).values(result_name=stored.name, result_sha256=stored.sha256)
        )
    told = world.get(job, "candidates").json()
    assert told["lowest"] is None
    assert all(one["reported"] for one in told["candidates"])


def _without_faint(stored: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(stored)) as source, zipfile.ZipFile(written, "w") as target:
        kept = json.loads(source.read("findings.json"))
        del kept["findings"]["faint"], kept["findings"]["faint_probability"]
        target.writestr("findings.json", json.dumps(kept))
        target.writestr("result.json", source.read("result.json"))
    return written.getvalue()


@pytest.mark.parametrize("view", ["outlines", "candidates", "nodules/nodule-1/thumbnail.png"])
def test_a_job_that_is_not_there_not_done_or_erased(world: World, scan: bytes, view: str) -> None:
    assert refused(world.get("none", view)) == (404, "unknown_job")
    job = world.job(scan, operating_point="none")
    assert refused(world.get(job, view)) == (409, "job_not_finished")
    world.queue.tickets.clear()
    world.client.delete(f"/v1/jobs/{job}/data")
    assert refused(world.get(job, view)) == (410, "job_erased")
