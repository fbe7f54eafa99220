"""Whose a de-identified scan was is kept for its job alone, and goes with it; what belongs to no job is swept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.imaging.inputs import InputFile
from app.jobs.identities import Identities
from app.jobs.intake import Request
from tests.jobs.installations import ORDER, WHO, World, world


def submitted(here: World, identity: bytes) -> str:
    folder = here.jobs.store.incoming / "upload"
    folder.mkdir()
    (folder / "000000").write_bytes(b"scan")
    return here.jobs.intake.accept(folder, [InputFile(folder / "000000")], Request(ORDER, WHO, identity=identity))


def test_it_is_whole_secret_and_goes(tmp_path: Path) -> None:
    kept = Identities(tmp_path / "identities")
    assert (kept.of("a"), kept.left_of("a"), kept.erase("a").files, kept.older_than(-1)) == (None, 0, 0, [])
    kept.keep("a", b"first")
    kept.keep("a", b"second")
    (path,) = (tmp_path / "identities").iterdir()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (kept.of("a"), kept.left_of("a")) == (b"second", 1)
    assert (kept.erase("a").size, kept.left_of("a")) == (6, 0)


def test_it_is_erased_with_its_job_and_the_receipt_says_so(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job_id = submitted(here, b"whose")
        assert here.jobs.identities.of(job_id) == b"whose"
        assert b"whose" not in (tmp_path / "data/jobs.sqlite").read_bytes()
        receipt = here.jobs.eraser.erase(job_id, WHO, "request")
        assert (receipt.files_left, here.jobs.identities.of(job_id)) == (0, None)


def test_what_belongs_to_no_job_is_swept(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job_id = submitted(here, b"whose")
        here.jobs.identities.keep("f" * 32, b"of a process that was killed before it wrote its job down")
        (here.jobs.identities.root / ".partial.json").write_bytes(b"cut short")
        replace(here.jobs.eraser, orphan_age_s=-1.0).sweep()
        assert [path.stem for path in here.jobs.identities.root.iterdir()] == [job_id]
