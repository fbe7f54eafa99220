"""Slices over HTTP: where they lie, what they show, and that a scan is open only as long as it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from app.imaging.planes import PLANES, PlaneName
from app.jobs.rows import Who
from app.jobs.tables import audit
from app.phantom.chest import PhantomCt
from tests.api.analysed import World, analysed_world, reading_phantom, refused, zipped_series


@pytest.fixture(scope="module")
def phantom() -> PhantomCt:
    # Head first in the array, rows and columns as usual: slices count against the axis they lie along.
    return reading_phantom(direction_lps_zyx=np.eye(3)[:, ::-1] * (-1, 1, 1))


@pytest.fixture(scope="module")
def scan(phantom: PhantomCt, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return zipped_series(phantom.volume, tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[World]:
    with analysed_world(tmp_path_factory.mktemp("volume"), tiny_model_store, opened_scans_bytes=1) as made:
        yield made


@pytest.fixture(scope="module")
def job(world: World, scan: bytes) -> str:
    return world.job(scan)  # waiting: slices are there before the answer


def slab(world: World, job: str, **params: Any) -> np.ndarray:
    answer = world.get(job, "volume/slab", **params)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "no-store"
    shape = tuple(map(int, answer.headers["x-slab-shape"].split(",")))
    return np.frombuffer(answer.content, np.uint8).reshape(shape)


def test_the_geometry_is_that_of_the_scan(world: World, job: str, phantom: PhantomCt) -> None:
    volume = world.get(job, "volume").json()
    assert volume["disclaimer"] == "Research use only. Not for diagnosis."
    assert volume["shape_zyx"] == list(phantom.volume.hu.shape)
    assert np.allclose(volume["spacing_zyx_mm"], (3.75, 2.5, 2.5))
    affine = np.array(volume["affine_index_zyx_to_lps_mm"])
    slices = volume["slices"]
    assert [one["index_z"] for one in slices] == list(range(len(phantom.volume.hu)))
    assert len({one["sop_instance_uid"] for one in slices}) == len(slices)
    assert all(one["instance_number"] is not None and one["frame_number"] is None for one in slices)
    assert np.allclose([one["position_mm"] for one in slices], [(affine @ (z, 0, 0, 1))[2] for z in range(len(slices))])
    assert np.allclose(np.abs(np.diff([one["position_mm"] for one in slices])), 3.75)
    low, high = volume["hu_range"]
    assert low < -900 < 300 < high
    assert {"name": "lung", "center": -600.0, "width": 1500.0} in volume["windows"]
    for plane in volume["planes"].values():
        assert np.prod([plane["count"], plane["rows"], plane["columns"]]) == np.prod(volume["shape_zyx"])


@pytest.mark.parametrize("plane", PLANES)
def test_a_nodule_is_bright_where_the_matrix_puts_it(
    world: World, job: str, phantom: PhantomCt, plane: PlaneName
) -> None:
    told = world.get(job, "volume").json()["planes"][plane]
    for nodule in phantom.nodules:
        place = np.linalg.inv(told["to_lps_mm"]) @ (*nodule.center_lps_mm, 1.0)
        number, row, column = (int(i) for i in np.rint(place[:3]))
        shown = slab(world, job, plane=plane, first=number, count=1)
        assert shown.shape == (1, told["rows"], told["columns"])
        assert shown[0, row, column] > 190  # solid tissue is light in a lung window, lung is dark
        halved = slab(world, job, plane=plane, first=number, count=1, step=2)
        assert np.array_equal(halved, shown[:, ::2, ::2])
        x, y, z = nodule.center_lps_mm
        hu = world.get(job, "volume/hu", lps=f"{x},{y},{z}").json()
        assert round((hu["hu"] + 1350) / 1500 * 255) == pytest.approx(int(shown[0, row, column]), abs=1)


def test_a_slab_ends_with_the_scan_and_its_maximum_is_thick(world: World, job: str) -> None:
    last = slab(world, job, first=76, count=50)
    assert last.shape[0] == 4
    single = slab(world, job, first=20, count=9)
    thick = slab(world, job, first=24, count=1, mip_mm=30.0)
    assert np.array_equal(thick[0], single.max(axis=0))  # four slices of 3.75 mm on either side


def test_a_large_slab_is_packed_when_asked(world: World, job: str) -> None:
    path = f"/v1/jobs/{job}/volume/slab?count=8"
    packed = world.client.get(path, headers={"accept-encoding": "gzip"})
    plain = world.client.get(path, headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) == 8 * 140 * 140
    assert packed.content == plain.content
    assert packed.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("asked", "packed"), [("gzip;q=0", False), ("br, gzip;q=0.5", True), ("identity, GZIP", True), ("xgzip", False)]
)
def test_a_client_may_refuse_the_packing(world: World, job: str, asked: str, packed: bool) -> None:
    answer = world.client.get(f"/v1/jobs/{job}/volume/slab?count=8", headers={"accept-encoding": asked})
    assert ("content-encoding" in answer.headers) is packed


def test_a_look_is_noted_once_for_each_opening(world: World, scan: bytes) -> None:
    job = world.job(scan, operating_point="sensitive")
    for path in ("volume/slab", "volume", "volume/slab"):
        world.get(job, path)
    with world.jobs.database.reading() as connection:
        query = sa.select(sa.func.count()).where(audit.c.job_id == job, audit.c.action == "job.volume")
        assert connection.execute(query).scalar_one() == 1


def test_outside_the_scan_there_is_no_value(world: World, job: str) -> None:
    assert world.get(job, "volume/hu", lps="1e6,0,0").json() == {"hu": None, "index_zyx": None}


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"plane": "oblique"}, "invalid_request"),
        ({"plane": "../axial"}, "invalid_request"),
        ({"first": -1}, "invalid_request"),
        ({"first": 80}, "slice_out_of_range"),
        ({"first": 10**30}, "invalid_request"),
        ({"count": 0}, "invalid_request"),
        ({"count": 10**9}, "invalid_request"),
        ({"step": 0}, "invalid_request"),
        ({"width": 0}, "invalid_request"),
        ({"width": "nan"}, "invalid_request"),
        ({"center": "inf"}, "invalid_request"),
        ({"center": "1e999"}, "invalid_request"),
        ({"mip_mm": -1}, "invalid_request"),
        ({"mip_mm": "nan"}, "invalid_request"),
        ({"mip_mm": 1e9}, "invalid_request"),
    ],
)
def test_hostile_parameters(world: World, job: str, params: dict[str, Any], code: str) -> None:
    assert refused(world.get(job, "volume/slab", **params)) == (422, code)


@pytest.mark.parametrize("lps", ["", "1,2", "1,2,3,4", "nan,0,0", "1,2,inf", "x,y,z", "1,,2", "0" * 97 + ",0"])
def test_hostile_points(world: World, job: str, lps: str) -> None:
    assert refused(world.get(job, "volume/hu", lps=lps)) == (422, "invalid_point")


def test_a_slab_is_bounded(world: World, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.routes.job_volume.MOST_SLAB_BYTES", 4 * 140 * 140)
    assert world.get(job, "volume/slab", count=4).status_code == 200
    assert refused(world.get(job, "volume/slab", count=5)) == (422, "slab_too_large")


def test_what_cannot_be_read_says_so_each_time(world: World) -> None:
    broken = world.job(b"PK no archive", "scan.zip")
    for _ in range(2):
        status, code = refused(world.get(broken, "volume"))
        assert (status, code) == (415, "not_dicom")
    assert refused(world.get("none", "volume")) == (404, "unknown_job")


def test_only_as_much_is_open_as_may_be(world: World, job: str, scan: bytes) -> None:
    other = world.job(scan, allow_repairs="missing_slices")
    world.get(job, "volume")
    assert world.state.scans.job_ids == [job]
    world.get(other, "volume")  # the settings leave room for the newest only
    assert world.state.scans.job_ids == [other]
    assert len(world.opened_files()) == 1


def test_an_erased_job_is_not_shown_from_what_was_open(world: World, scan: bytes, tmp_path: Path) -> None:
    first, second = world.job(scan), world.job(scan, allow_repairs="duplicate_slices")
    for job in (first, second):
        assert world.get(job, "volume/slab").status_code == 200
    # By the route: closed at once. Elsewhere: at the next look, and by the sweep.
    world.client.delete(f"/v1/jobs/{second}/data")
    assert world.opened_files() == []
    assert world.get(second, "volume/slab").status_code == 410
    world.get(first, "volume")
    world.jobs.eraser.erase(first, Who("other process"), "age")
    assert len(world.opened_files()) == 1
    assert refused(world.get(first, "volume/slab")) == (410, "job_erased")
    assert world.opened_files() == []


def test_the_sweep_closes_what_is_erased_elsewhere_or_idle(world: World, scan: bytes) -> None:
    job = world.job(scan)
    world.get(job, "volume")
    world.client.portal.call(world.state.scans.forget_erased)  # type: ignore[union-attr]
    assert world.state.scans.job_ids == [job]
    world.jobs.eraser.erase(job, Who("other process"), "age")
    world.client.portal.call(world.state.scans.forget_erased)  # type: ignore[union-attr]
    assert world.opened_files() == []


def test_who_asks_at_the_same_time_waits_for_the_same_opening(
    world: World, scan: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import app.api.opened_scans as module  # noqa: PLC0415

    openings = []
    real = module._opened

    def counted(*args: Any) -> Any:
        openings.append(args)
        return real(*args)

    monkeypatch.setattr(module, "_opened", counted)
    job = world.job(scan)
    world.state.scans.forget(job)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(world.state.scans.scan(job) for _ in range(20)))

    found = world.client.portal.call(all_at_once)  # type: ignore[union-attr]
    assert len(openings) == 1
    assert len({id(scan) for _, scan in found}) == 1


def test_idle_scans_are_closed_and_nothing_outlives_the_service(
    tmp_path: Path, tiny_model_store: Path, scan: bytes
) -> None:
    with analysed_world(tmp_path, tiny_model_store, opened_scans_idle_s=1e-6) as short:
        job = short.job(scan)
        answer = short.get(job, "volume")
        assert answer.status_code == 200
        short.client.portal.call(lambda: _later(short.state.scans.forget_idle))  # type: ignore[union-attr]
        assert short.opened_files() == []
    with analysed_world(tmp_path / "other", tiny_model_store) as other:
        job = other.job(scan)
        other.get(job, "volume")
        assert len(other.opened_files()) == 1
        uploads = other.uploads
    assert list(uploads.rglob("*")) == []


async def _later(call: Any) -> None:
    await asyncio.sleep(0)
    call()
