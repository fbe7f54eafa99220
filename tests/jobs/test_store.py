"""What is kept comes back whole or not at all, from a folder and from a bucket, and goes without a rest."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.imaging.errors import OptionError
from app.imaging.inputs import InputFile
from app.jobs import object_store
from app.jobs.folder_store import FolderStore
from app.jobs.object_store import ObjectStore, open_object_store
from app.jobs.records import StoreDamaged, StoreUnavailable
from app.jobs.store import Store, content_digest
from tests.jobs.s3 import TestBucket

SCAN, JOB, OURS = "5" * 32, "7" * 32, "9" * 32
PART_BYTES = 10


@pytest.fixture
def in_bucket(tmp_path: Path, bucket: TestBucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setattr(object_store, "PART_BYTES", PART_BYTES)
    with open_object_store(bucket.url, tmp_path, OURS) as store:
        yield store


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "bucket":
        return request.getfixturevalue("in_bucket")  # type: ignore[no-any-return]
    made = FolderStore(tmp_path)
    made.prepare()
    return made


def received(store: Store, *contents: bytes) -> tuple[Path, list[InputFile]]:
    folder = store.incoming / "upload"
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number:06d}").write_bytes(content)
    return folder, [InputFile(folder / f"{number:06d}", f"Doe^John {number}") for number in range(len(contents))]


def fetched(store: Store, scan_id: str = SCAN) -> list[tuple[str | None, bytes]]:
    with store.scan(scan_id) as files:
        return [(file.name, file.path.read_bytes()) for file in files]


def test_scans_come_back(store: Store) -> None:
    """Files that end within a part, with it, beyond it, and empty ones."""
    p = PART_BYTES
    for number, sizes in enumerate([(1,), (p,), (p + 1,), (0,), (0, 3, 0, 4), (4, p * 9 + 2, 7), (p,) * 5]):
        contents = [bytes((file * 31 + i) % 251 for i in range(size)) for file, size in enumerate(sizes)]
        scan_id = f"{number:032x}"
        folder, files = received(store, *contents)
        store.keep_scan(scan_id, folder, files)
        assert fetched(store, scan_id) == [(f"Doe^John {file}", content) for file, content in enumerate(contents)]
        assert max(store.scan_ids()) == scan_id
        assert -5 < store.age_s(time.time(), scan_id=scan_id) < 600
        shutil.rmtree(folder, ignore_errors=True)


def test_a_scan_is_taken_back(store: Store) -> None:
    folder, files = received(store, b"one", b"two")
    before = content_digest(files)
    store.keep_scan(SCAN, folder, files)
    store.take_back(SCAN, folder)
    assert store.scan_ids() == []
    assert content_digest(files) == before
    assert sorted(path.name for path in folder.iterdir()) == ["000000", "000001"]


def test_a_result_comes_back(store: Store) -> None:
    first, second = store.keep_result(JOB, 1, b"first"), store.keep_result(JOB, 1, b"second")
    assert (store.result(JOB, first), store.result(JOB, second)) == (b"first", b"second")
    assert store.result_ids() == [JOB]
    store.erase_result(JOB, first)
    with pytest.raises(StoreDamaged) as caught:
        store.result(JOB, first)
    assert caught.value.code == "result_missing"
    assert store.result(JOB, second) == b"second"


def test_what_is_erased_is_gone(store: Store) -> None:
    store.keep_scan(SCAN, *received(store, b"one", b"two"))
    store.keep_result(JOB, 1, b"answer")
    of_scan = 3 if isinstance(store, FolderStore) else 2  # a part holds both files
    assert store.left_of(JOB, SCAN) == of_scan + 1
    assert store.erase_scan(SCAN).files == of_scan
    assert (store.left_of(JOB, SCAN), store.left_of("8" * 32, SCAN)) == (1, 0)
    assert store.erase_results(JOB).size == len(b"answer")
    assert (store.left_of(JOB, SCAN), store.scan_ids(), store.result_ids()) == (0, [], [])
    assert (store.erase_scan(SCAN).files, store.erase_results(JOB).files) == (0, 0)
    assert store.age_s(time.time(), scan_id=SCAN) == 0.0
    with pytest.raises(StoreDamaged) as caught:
        fetched(store)
    assert caught.value.code == "scan_missing"


def test_nothing_of_a_fetched_scan_stays_on_this_machine(in_bucket: ObjectStore) -> None:
    in_bucket.keep_scan(SCAN, *received(in_bucket, b"one" * 20))
    with in_bucket.scan(SCAN) as files:
        assert files[0].path.is_relative_to(in_bucket.scratch)
    assert list(in_bucket.scratch.iterdir()) == []
    with pytest.raises(ZeroDivisionError), in_bucket.scan(SCAN):
        raise ZeroDivisionError
    assert list(in_bucket.scratch.iterdir()) == []


def test_without_its_manifest_a_scan_is_not_there(in_bucket: ObjectStore, bucket: TestBucket) -> None:
    in_bucket.keep_scan(SCAN, *received(in_bucket, b"one" * 20))
    bucket.remove(f"scans/{SCAN}/manifest.json")
    with pytest.raises(StoreDamaged) as caught:
        fetched(in_bucket)
    assert caught.value.code == "scan_missing"
    assert in_bucket.scan_ids() == [SCAN]  # for the sweep


@pytest.mark.parametrize(
    ("key", "body", "code"),
    [
        ("000001", b"x" * PART_BYTES, "scan_damaged"),
        ("000001", None, "scan_missing"),
        ("manifest.json", b"{}", "scan_damaged"),
        ("manifest.json", b'{"files":[{"name":"Doe^John","size":9}],"parts":[]}', "scan_damaged"),
        ("manifest.json", b"\xff", "scan_damaged"),
    ],
)
def test_a_damaged_scan_is_refused(
    in_bucket: ObjectStore, bucket: TestBucket, key: str, body: bytes | None, code: str
) -> None:
    in_bucket.keep_scan(SCAN, *received(in_bucket, b"one" * 20))
    if body is None:
        bucket.remove(f"scans/{SCAN}/{key}")
    else:
        bucket.write(f"scans/{SCAN}/{key}", body)
    with pytest.raises(StoreDamaged) as caught:
        fetched(in_bucket)
    assert caught.value.code == code
    assert "Doe" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert list(in_bucket.scratch.iterdir()) == []


def test_a_damaged_answer_is_refused(in_bucket: ObjectStore, bucket: TestBucket) -> None:
    kept = in_bucket.keep_result(JOB, 1, b"answer")
    bucket.write(f"results/{JOB}/{kept.name}", b"Answer")
    with pytest.raises(StoreDamaged) as caught:
        in_bucket.result(JOB, kept)
    assert caught.value.code == "result_damaged"


def test_an_upload_that_fails_half_way_leaves_nothing(in_bucket: ObjectStore, bucket: TestBucket) -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> int | None:
        asked.append(path) if method == "PUT" else None
        return 500 if method == "PUT" and path.endswith("000004") else None  # alone in its group

    bucket.s3.instead(answer)
    with pytest.raises(StoreUnavailable):
        in_bucket.keep_scan(SCAN, *received(in_bucket, b"one" * 15))
    assert any(path.endswith("000000") for path in asked)
    assert not any(path.endswith("manifest.json") for path in asked)
    assert bucket.keys() == []


def test_a_store_that_is_away_says_nothing_of_what_is_in_it(in_bucket: ObjectStore, bucket: TestBucket) -> None:
    folder, files = received(in_bucket, b"one")
    in_bucket.keep_scan(SCAN, folder, files)
    kept = in_bucket.keep_result(JOB, 1, b"answer")
    bucket.s3.stop()
    try:
        for ask in (
            lambda: fetched(in_bucket),
            lambda: in_bucket.result(JOB, kept),
            lambda: in_bucket.keep_result(JOB, 2, b"answer"),
            lambda: in_bucket.keep_scan("6" * 32, folder, files),
            lambda: in_bucket.erase_scan(SCAN),
            lambda: in_bucket.left_of(JOB, SCAN),
            in_bucket.scan_ids,
        ):
            with pytest.raises(StoreUnavailable) as caught:
                ask()
            assert caught.value.code == "store_unavailable"
            assert caught.value.values["retry_after_s"] > 0
    finally:
        bucket.s3.start()
    assert fetched(in_bucket) == [("Doe^John 0", b"one")]


def test_another_bucket_in_its_place_is_no_empty_store(in_bucket: ObjectStore, bucket: TestBucket) -> None:
    in_bucket.keep_scan(SCAN, *received(in_bucket, b"one"))
    kept = in_bucket.keep_result(JOB, 1, b"answer")
    for key in (*bucket.keys(), "lungnodule-store.json"):
        bucket.remove(key)
    for ask in (lambda: fetched(in_bucket), lambda: in_bucket.result(JOB, kept), lambda: in_bucket.left_of(JOB, SCAN)):
        with pytest.raises(StoreUnavailable) as caught:
            ask()
        assert caught.value.code == "store_missing"
    bucket.s3.client.delete_bucket(Bucket=bucket.name)
    with pytest.raises(StoreUnavailable):
        in_bucket.keep_result(JOB, 1, b"answer")
    with pytest.raises(StoreUnavailable):
        in_bucket.left_of(JOB, SCAN)


@pytest.mark.parametrize("marker", [b'{"format":1,"installation":"another"}', b"?"])
def test_the_store_of_another_installation_is_not_touched(
    in_bucket: ObjectStore, bucket: TestBucket, tmp_path: Path, marker: bytes
) -> None:
    in_bucket.keep_scan(SCAN, *received(in_bucket, b"one"))
    with open_object_store(bucket.url, tmp_path, OURS) as beside:  # another process of ours
        assert fetched(beside) == [("Doe^John 0", b"one")]
    bucket.write("lungnodule-store.json", marker)
    before = bucket.keys()
    with pytest.raises(OptionError) as caught, open_object_store(bucket.url, tmp_path, OURS):
        pass
    assert caught.value.code == "store_of_another"
    assert bucket.keys() == before
    assert bucket.body("lungnodule-store.json") == marker
    with pytest.raises(StoreUnavailable):
        in_bucket.left_of(JOB, SCAN)


def test_without_rights_it_says_so(in_bucket: ObjectStore, bucket: TestBucket) -> None:
    bucket.s3.instead(lambda _method, _path: 403)
    with pytest.raises(StoreUnavailable) as caught:
        in_bucket.keep_result(JOB, 1, b"answer")
    assert caught.value.code == "store_denied"


@pytest.mark.parametrize("denied", ["PUT", "POST"], ids=["writing", "erasing"])
def test_it_does_not_start_without_the_right_to(tmp_path: Path, bucket: TestBucket, denied: str) -> None:
    bucket.s3.instead(lambda method, _path: 403 if method == denied else None)
    with pytest.raises(StoreUnavailable) as caught, open_object_store(bucket.url, tmp_path, OURS):
        pass
    assert caught.value.code == "store_denied"


def test_a_bucket_that_keeps_what_is_erased_is_refused(tmp_path: Path, bucket: TestBucket) -> None:
    bucket.s3.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(OptionError) as caught, open_object_store(bucket.url, tmp_path, OURS):
        pass
    assert caught.value.code == "store_keeps_versions"


def test_a_bucket_that_is_missing_is_named(tmp_path: Path, bucket: TestBucket) -> None:
    with (
        pytest.raises(StoreUnavailable, match="absent-bucket"),
        open_object_store("s3://absent-bucket", tmp_path, OURS),
    ):
        pass


def test_a_bucket_without_prefix_will_do(tmp_path: Path, bucket: TestBucket) -> None:
    with open_object_store(f"s3://{bucket.name}/", tmp_path, OURS) as store:
        store.keep_scan(SCAN, *received(store, b"one"))
        assert fetched(store) == [("Doe^John 0", b"one")]
        assert store.scan_ids() == [SCAN]
