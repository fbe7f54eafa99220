"""What was received is safe, becomes one job when its series is complete, and is found again when it comes again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from app.imaging.errors import OptionError
from app.jobs.records import DatabaseUnavailable, QueueFull
from app.jobs.rows import Who
from app.jobs.tables import pacs_returns, pacs_series
from app.pacs.errors import FailureReason, InstanceRefused
from app.pacs.instances import read_instance
from app.pacs.shelf import HANDED, LEFT, OPEN
from tests.pacs.pacs_worlds import PacsWorld, config, pacs_world, write_series


@pytest.fixture
def world(tmp_path: Path, database_url: str | None) -> Iterator[PacsWorld]:
    with pacs_world(tmp_path, database_url) as made:
        yield made


def series_rows(world: PacsWorld) -> list[dict[str, Any]]:
    with world.here.jobs.database.reading() as connection:
        return [dict(row) for row in connection.execute(sa.select(pacs_series)).mappings()]


def make_due(world: PacsWorld) -> None:
    """As if the quiet time had passed."""
    with world.here.jobs.database.transaction() as connection:
        connection.execute(sa.update(pacs_series).values(due_at=0.0))


def stored(world: PacsWorld, job: Any) -> int:
    """Files of a job's scan."""
    with world.here.jobs.store.scan(job.scan_id) as files:
        return len(files)


def test_a_series_that_is_quiet_becomes_one_job(world: PacsWorld) -> None:
    paths = write_series(world.folder / "ct")
    world.put(paths[:3])
    assert world.pacs.handover.hand_over_due() == 0  # more may come
    world.put(paths[3:])
    make_due(world)
    assert world.pacs.handover.hand_over_due() == 1
    assert world.pacs.handover.hand_over_due() == 0
    (job,) = world.jobs()
    with world.here.jobs.store.scan(job.scan_id) as kept:
        files = list(kept)
    assert sorted(file.path.read_bytes() for file in files) == sorted(path.read_bytes() for path in paths)
    assert [row["target"] for row in world.here.rows(pacs_returns, job.id)] == ["archive"]


def test_a_series_that_is_known_to_be_complete_does_not_wait(world: PacsWorld) -> None:
    world.put(write_series(world.folder / "ct"), complete=True)
    assert world.pacs.handover.hand_over_due() == 1


def test_two_series_of_a_study_are_two_jobs(world: PacsWorld) -> None:
    world.put([*write_series(world.folder / "a"), *write_series(world.folder / "b", number=2)])
    make_due(world)
    assert world.pacs.handover.hand_over_due() == 2


def test_what_comes_again_is_the_same_job(world: PacsWorld) -> None:
    paths = write_series(world.folder / "ct")
    for _ in range(2):
        world.put(paths, complete=True)
        world.pacs.handover.hand_over_due()
    assert len(world.jobs()) == 1
    assert world.pacs.shelf.tidy() == 0
    forget(world)
    world.put(paths, complete=True)
    assert world.pacs.handover.hand_over_due() == 1
    (job,) = world.jobs()
    assert len(world.here.rows(pacs_returns, job.id)) == 1


def forget(world: PacsWorld) -> None:
    """As if keep_s had passed."""
    with world.here.jobs.database.transaction() as connection:
        connection.execute(sa.update(pacs_series).values(due_at=-1e9))
    assert world.pacs.shelf.tidy() == 1


def test_what_is_erased_goes_from_the_shelf_too(world: PacsWorld) -> None:
    world.put(write_series(world.folder / "ct"), complete=True)
    world.pacs.handover.hand_over_due()
    (job,) = world.jobs()
    assert world.here.jobs.eraser.erase(job.id, Who("anna"), "request").rows_left == 0
    assert world.pacs.shelf.tidy() == 1
    assert list(world.pacs.shelf.root.iterdir()) == []


def test_the_same_instances_in_other_bytes_are_the_same_job(world: PacsWorld) -> None:
    def corrected(dataset: Dataset, _z: int) -> None:
        dataset.PatientID = "CORRECTED"

    world.put(write_series(world.folder / "ct"), complete=True)
    world.pacs.handover.hand_over_due()
    forget(world)
    world.put(write_series(world.folder / "again", edit=corrected), complete=True)
    assert world.pacs.handover.hand_over_due() == 1
    assert len(world.jobs()) == 1


def test_a_slice_that_comes_late_is_analysed_with_all_before_it(world: PacsWorld) -> None:
    paths = write_series(world.folder / "ct", slices=5)
    world.put(paths[:4], complete=True)
    world.pacs.handover.hand_over_due()
    world.put(paths[4:])
    assert [row["state"] for row in series_rows(world)] == [OPEN]
    make_due(world)
    assert world.pacs.handover.hand_over_due() == 1
    assert [stored(world, job) for job in world.jobs()] == [4, 5]


def test_a_slice_that_comes_while_the_job_is_made_is_not_lost(world: PacsWorld) -> None:
    paths = write_series(world.folder / "ct", slices=5)
    world.put(paths[:4], complete=True)
    series = world.pacs.handover._claim()
    assert series is not None
    world.put(paths[4:], complete=True)
    world.pacs.handover._close(series, None, None, "x")
    assert [row["state"] for row in series_rows(world)] == [OPEN]
    world.pacs.handover.hand_over_due()
    (job,) = world.jobs()
    assert stored(world, job) == 5


def test_what_no_rule_asks_for_is_let_go(world: PacsWorld) -> None:
    world.put(write_series(world.folder / "head", body_part_examined="HEAD"))
    assert series_rows(world) == []
    assert list(world.pacs.shelf.root.iterdir()) == []
    assert list(world.pacs.scratch.iterdir()) == []


def test_too_few_slices_are_left_until_more_come(world: PacsWorld) -> None:
    paths = write_series(world.folder / "ct")
    world.put(paths[:2], complete=True)
    assert world.pacs.handover.hand_over_due() == 0
    assert [(row["state"], row["code"]) for row in series_rows(world)] == [(LEFT, "too_few_instances")]
    world.put(paths[2:], complete=True)
    assert world.pacs.handover.hand_over_due() == 1
    assert [row["state"] for row in series_rows(world)] == [HANDED]


def test_a_model_that_is_gone_leaves_the_series_and_goes_on(tmp_path: Path) -> None:
    with pacs_world(tmp_path) as world:

        def refuse(_rule: Any, _uid: str) -> Any:
            raise OptionError("No such model.", code="unknown_model")

        object.__setattr__(world.pacs.handover, "make_order", refuse)
        world.put(write_series(tmp_path / "ct"), complete=True)
        assert world.pacs.handover.hand_over_due() == 0
        assert [row["code"] for row in series_rows(world)] == ["unknown_model"]


def test_a_full_queue_only_delays(tmp_path: Path) -> None:
    with pacs_world(tmp_path, max_queued=1) as world:
        waiting = world.here.submit()
        world.put(write_series(tmp_path / "ct"), complete=True)
        with pytest.raises(QueueFull):
            world.here.jobs.intake.refuse_when_full()
        assert world.pacs.handover.hand_over_due() == 0
        world.here.jobs.ledger.cancel(waiting, Who("anna"))
        make_due(world)
        assert world.pacs.handover.hand_over_due() == 1
        assert list(world.pacs.scratch.iterdir()) == []


def test_a_process_that_is_killed_while_it_hands_over_makes_one_job(world: PacsWorld) -> None:
    world.put(write_series(world.folder / "ct"), complete=True)
    series = world.pacs.handover._claim()
    assert series is not None
    files = [path for path, _ in world.pacs.shelf.files(series["id"])]
    job_id = world.pacs.handover._accept(series, files, world.pacs.handover.make_order(config().rules[0], ""))
    make_due(world)  # killed here: the job is made, nothing is noted
    assert world.pacs.handover.hand_over_due() == 1
    assert [job.id for job in world.jobs()] == [job_id]
    assert len(world.here.rows(pacs_returns, job_id)) == 1


def test_nothing_counts_as_received_when_the_database_is_away(
    world: PacsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_series(world.folder / "ct")

    def away(*_: object) -> None:
        raise DatabaseUnavailable("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr(type(world.pacs.shelf), "_place", away)
        with pytest.raises(DatabaseUnavailable):
            world.put(paths)
    assert series_rows(world) == []
    world.put(paths, complete=True)  # the sender sends again
    assert world.pacs.handover.hand_over_due() == 1


def test_no_name_on_the_disk_is_a_uid(world: PacsWorld) -> None:
    def climb(dataset: Dataset, z: int) -> None:
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{z}"

    world.put(write_series(world.folder / "ct", edit=climb))
    names = [path.name for path in world.pacs.shelf.root.rglob("*")]
    assert len(names) == 5
    assert not any("1.2.3" in name for name in names)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", FailureReason.CANNOT_UNDERSTAND),
        (b"%PDF-1.7" + bytes(200), FailureReason.CANNOT_UNDERSTAND),
        (bytes(128) + b"DICM", FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED),
        (bytes(128) + b"DICM\x02\x00\x10\x00UI\xff\xff", FailureReason.CANNOT_UNDERSTAND),
    ],
)
def test_what_is_no_dicom_is_refused(tmp_path: Path, content: bytes, reason: FailureReason) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InstanceRefused) as told:
        read_instance(path)
    assert told.value.reason in (reason, FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED)


def test_uids_that_are_none_are_refused(tmp_path: Path) -> None:
    def spoil(dataset: Dataset, _z: int) -> None:
        dataset.remove_private_tags()
        del dataset.SeriesInstanceUID

    with pytest.raises(InstanceRefused) as told:
        read_instance(write_series(tmp_path, slices=3, edit=spoil)[0])
    assert (told.value.code, told.value.reason) == ("uids_missing", FailureReason.CANNOT_UNDERSTAND)


def test_other_classes_than_ct_are_refused_so_our_own_results_cannot_come_back(tmp_path: Path) -> None:
    from tests.pacs.pacs_worlds import capture  # noqa: PLC0415

    path = tmp_path / "sc.dcm"
    capture("job", "sc", "1.2.3").save_as(path, enforce_file_format=True)
    with pytest.raises(InstanceRefused) as told:
        read_instance(path)
    assert told.value.reason == FailureReason.SOP_CLASS_NOT_SUPPORTED
