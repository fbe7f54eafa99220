"""Batches over HTTP: a job for each series, all or none, and nothing left of what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.imaging.inputs import InputFile
from app.imaging.reading import read_ct
from app.jobs.records import StoredFile, StoreUnavailable
from app.jobs.tables import batches
from app.phantom.dicom_series import write_dicom_series
from tests.api.standins import Recorder, left_in
from tests.api.test_jobs import HOOKS, Desk, open_desk, refused  # noqa: F401 - a fixture among them
from tests.imaging.dicom_worlds import SMALL, options, tiny_ct

Series = list[tuple[str, tuple[str, bytes]]]


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:  # noqa: F811
    return open_desk(read=SMALL, webhooks=HOOKS)


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., Series]:
    """``series(1, 2)`` gives the files of two CT series of two patients; a negative seed one that is too short."""

    def write(*seeds: int) -> Series:
        files: Series = []
        for seed in seeds:
            volume = tiny_ct(seed=seed) if seed >= 0 else tiny_ct((2, 12, 10), seed=-seed)
            paths = write_dicom_series(volume, tmp_path / f"series-{seed}")
            files += [("files", (f"{seed}-{path.name}", path.read_bytes())) for path in paths]
        return files

    return write


def zipped(files: Series) -> Series:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for _, (name, content) in files:
            archive.writestr(name, content)
    return [("files", ("all.zip", buffer.getvalue()))]


def post(desk: Desk, files: Series, **more: Any) -> dict[str, Any]:
    answer = desk.client.post("/v1/batches", files=files, **more)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def assert_nothing_is_left(desk: Desk) -> None:
    assert desk.client.get("/v1/jobs").json()["jobs"] == []
    assert (desk.jobs.store.scan_ids(), desk.jobs.store.result_ids()) == ([], [])
    assert left_in(desk.jobs.store.incoming) == []
    with desk.jobs.database.reading() as connection:
        assert connection.execute(batches.select()).all() == []


@pytest.mark.parametrize("packed", [False, True])
def test_a_job_for_each_series(
    desk: Desk, recorder: Recorder, series: Callable[..., Series], tmp_path: Path, *, packed: bool
) -> None:
    files = series(1, 2, -3)
    answer = desk.client.post("/v1/batches", files=zipped(files) if packed else files, data={"notify": "pacs"})
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["location"] == batch["link"] == f"/v1/batches/{batch['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert (batch["finished"], batch["counts"], batch["files_received"]) == (False, {"queued": 2}, 18)
    assert [reason["code"] for one in batch["rejected"] for reason in one["reasons"]] == ["too_few_slices"]
    assert len(desk.jobs.store.scan_ids()) == 2
    assert left_in(desk.jobs.store.incoming) == []
    seen = []

    def during(_on_progress: object) -> None:
        seen.append(read_ct([InputFile(path) for path in recorder.paths], options())[0])

    recorder.during = during
    desk.work()
    expected = [tiny_ct(seed=seed).hu.tobytes() for seed in (1, 2)]
    assert sorted(volume.hu.tobytes() for volume in seen) == sorted(expected)
    series_of = {job["id"]: job["series"]["series_instance_uid"] for job in batch["jobs"]}
    assert list(series_of.values()) == [volume.identity.series_instance_uid for volume in seen]
    shown = desk.client.get(batch["link"])
    assert (shown.json()["finished"], shown.json()["counts"]) == (True, {"succeeded": 2})
    assert "retry-after" not in shown.headers
    for job in shown.json()["jobs"]:
        assert desk.client.get(job["link"]).json()["notify"] == "pacs"
        assert desk.client.get(job["result"]).status_code == 200


def test_the_same_key(desk: Desk, series: Callable[..., Series]) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = post(desk, series(1, 2), headers=key)
    assert post(desk, series(1, 2)[::-1], headers=key)["id"] == first["id"]
    assert len(desk.client.get("/v1/jobs").json()["jobs"]) == 2
    other = desk.client.post("/v1/batches", files=series(1), headers=key)
    assert refused(other) == (422, "idempotency_key_reused")
    assert refused(
        desk.client.post("/v1/batches", files=series(1, 2), headers=key, data={"operating_point": "sensitive"})
    ) == (422, "idempotency_key_reused")


def test_a_series_is_known_again_however_it_is_packed(
    desk: Desk, recorder: Recorder, series: Callable[..., Series]
) -> None:
    alone = desk.client.post("/v1/jobs", files=series(1)).json()
    desk.work()
    batch = post(desk, zipped(series(1, 2)))
    assert batch["counts"] == {"succeeded": 1, "queued": 1}
    assert sorted(str(job["answered_from"]) for job in batch["jobs"]) == sorted([alone["id"], "None"])
    assert len(desk.jobs.store.scan_ids()) == 2
    recorder.contents = []
    desk.work()
    again = post(desk, series(2, 1))
    assert (again["finished"], again["counts"]) == (True, {"succeeded": 2})


def test_one_patient_can_be_erased_and_the_others_stay(desk: Desk, series: Callable[..., Series]) -> None:
    batch = post(desk, zipped(series(1, 2)))
    desk.work()
    first, second = batch["jobs"]
    receipt = desk.client.delete(f"{first['link']}/data").json()
    assert (receipt["files_left"], receipt["rows_left"], receipt["scan_shared_with"]) == (0, 0, [])
    shown = desk.client.get(batch["link"]).json()
    assert [job["id"] for job in shown["jobs"]] == [second["id"]]
    assert shown["counts"] == {"erased": 1, "succeeded": 1}
    assert first["series"]["series_instance_uid"] not in desk.client.get(batch["link"]).text
    assert desk.client.get(second["result"] or f"{second['link']}/result").status_code == 200


def test_with_its_last_job_a_batch_is_erased(desk: Desk, series: Callable[..., Series]) -> None:
    batch = post(desk, series(1, 2, -3), headers={"Idempotency-Key": "k"})
    for job in batch["jobs"]:
        assert desk.client.delete(f"{job['link']}/data").json()["files_left"] == 0
    assert refused(desk.client.get(batch["link"])) == (410, "batch_erased")
    with desk.jobs.database.reading() as connection:
        (row,) = connection.execute(batches.select()).mappings().all()
    assert (row["left_out"], row["key_sha256"], row["fingerprint"]) == ({}, None, None)
    assert post(desk, series(1), headers={"Idempotency-Key": "k"})["id"] != batch["id"]
    assert refused(desk.client.get(f"/v1/batches/{'0' * 32}")) == (404, "unknown_batch")


def test_what_is_left_of_a_batch_is_cancelled(desk: Desk, series: Callable[..., Series]) -> None:
    answered = desk.client.post("/v1/jobs", files=series(1)).json()
    desk.work()
    batch = post(desk, series(1, 2, 3))
    assert batch["counts"] == {"succeeded": 1, "queued": 2}
    shown = desk.client.delete(batch["link"])
    assert shown.status_code == 200
    assert (shown.json()["finished"], shown.json()["counts"]) == (True, {"succeeded": 1, "cancelled": 2})
    assert desk.client.delete(batch["link"]).json() == shown.json()
    desk.work()
    assert desk.client.get(batch["link"]).json() == shown.json()
    assert {job["answered_from"] for job in shown.json()["jobs"]} == {answered["id"], None}
    assert refused(desk.client.delete(f"/v1/batches/{'0' * 32}")) == (404, "unknown_batch")


def test_a_job_that_ends_meanwhile_keeps_its_answer(
    desk: Desk, series: Callable[..., Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = post(desk, series(1, 2))
    cancel = desk.jobs.ledger.cancel

    def after_the_work(*asked: Any) -> Any:
        desk.work()
        return cancel(*asked)

    monkeypatch.setattr(type(desk.jobs.ledger), "cancel", lambda _ledger, *asked: after_the_work(*asked))
    assert desk.client.delete(batch["link"]).json()["counts"] == {"succeeded": 2}


def test_the_same_content_twice_is_one_job(desk: Desk, series: Callable[..., Series], tmp_path: Path) -> None:
    volume = ("files", ("a.mha", mha(tmp_path)))
    batch = post(desk, [volume, ("files", ("b.mha", volume[1][1])), *series(1)])
    assert len(batch["jobs"]) == 2
    assert [reason["code"] for one in batch["rejected"] for reason in one["reasons"]] == ["repeated"]


@pytest.mark.parametrize(
    ("seeds", "fields", "expected"),
    [
        ((-3,), {}, (422, "unsupported_series")),
        ((1, 2, 3), {}, (413, "too_many_series")),
        ((1,), {"series_uid": "1.2.3"}, (422, "invalid_option")),
        ((1,), {"model": "none"}, (422, "unknown_model")),
        ((1,), {"notify": "http://evil/"}, (422, "unknown_webhook")),
    ],
)
def test_what_is_refused_leaves_nothing(
    open_desk: Callable[..., Desk],  # noqa: F811
    series: Callable[..., Series],
    seeds: tuple[int, ...],
    fields: dict[str, str],
    expected: tuple[int, str],
) -> None:
    desk = open_desk(read=SMALL, max_batch_jobs=2)
    assert refused(desk.client.post("/v1/batches", files=series(*seeds), data=fields)) == expected
    assert_nothing_is_left(desk)


@pytest.mark.parametrize("hostile", [b"PK\x03\x04 and no more", b"\0" * 128 + b"DICM" + b"\xff" * 99, b""])
def test_hostile_bytes_among_good_ones_leave_nothing(desk: Desk, series: Callable[..., Series], hostile: bytes) -> None:
    answer = desk.client.post("/v1/batches", files=[*series(1), ("files", ("x", hostile))])
    if hostile:
        assert refused(answer)[0] == 422
        assert_nothing_is_left(desk)
    else:
        assert answer.json()["files_ignored"][0]["code"] == "empty_file"


def test_a_queue_without_room_for_all_takes_none(
    open_desk: Callable[..., Desk],  # noqa: F811
    series: Callable[..., Series],
) -> None:
    desk = open_desk(read=SMALL, max_queued=2)
    assert refused(desk.client.post("/v1/batches", files=series(1, 2, 3))) == (413, "too_many_series")
    assert_nothing_is_left(desk)
    post(desk, series(1))
    answer = desk.client.post("/v1/batches", files=series(2, 3))
    assert refused(answer) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0
    assert len(desk.jobs.store.scan_ids()) == len(desk.client.get("/v1/jobs").json()["jobs"]) == 1
    post(desk, series(2))
    full = desk.client.post("/v1/batches", content=b"never read", headers={"content-type": "text/plain"})
    assert refused(full) == (429, "queue_full")


@pytest.mark.parametrize("attribute", ["keep_scan", "keep_result"])
def test_a_store_that_fails_half_way_keeps_nothing(
    desk: Desk, series: Callable[..., Series], monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    """The second thing that is to be kept fails."""
    if attribute == "keep_result":
        desk.client.post("/v1/jobs", files=series(1))
        desk.client.post("/v1/jobs", files=series(2))
        desk.work()
    before = (set(desk.jobs.store.scan_ids()), set(desk.jobs.store.result_ids()))
    real, calls = getattr(type(desk.jobs.store), attribute), []

    def fail(store: object, *arguments: Any) -> StoredFile | None:
        calls.append(arguments)
        if len(calls) == 2:
            raise StoreUnavailable("Away.", values={"retry_after_s": 30})
        return real(store, *arguments)

    monkeypatch.setattr(type(desk.jobs.store), attribute, fail)
    answer = desk.client.post("/v1/batches", files=series(1, 2))
    assert refused(answer) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "30"
    assert (set(desk.jobs.store.scan_ids()), set(desk.jobs.store.result_ids())) == before
    assert left_in(desk.jobs.store.incoming) == []


def test_while_it_stops_nothing_new_is_taken(desk: Desk, series: Callable[..., Series]) -> None:
    desk.client.app.state.desk.draining.set()  # type: ignore[attr-defined]
    assert refused(desk.client.post("/v1/batches", files=series(1))) == (503, "draining")


def mha(folder: Path) -> bytes:
    import SimpleITK  # noqa: PLC0415

    image = SimpleITK.GetImageFromArray(tiny_ct(seed=9).hu)
    SimpleITK.WriteImage(image, str(folder / "volume.mha"))
    return (folder / "volume.mha").read_bytes()
