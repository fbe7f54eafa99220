"""A rule that de-identifies: what is on the shelf, what is refused instance by instance, and how a series stays one."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from app.imaging.identity import Identity
from app.pacs.errors import FailureReason
from tests.pacs.pacs_worlds import RULE, PacsWorld, config, pacs_world, write_series
from tests.pacs.test_receiving import client_with, reasons, related
from tests.pacs.test_shelf import series_rows

CONFIG = '[[rules]]\nname = "chest"\nmin_instances = 3\ndeidentify = { retain = ["modified_dates"] }\n'


@pytest.fixture
def world(tmp_path: Path, database_url: str | None) -> PacsWorld:
    with pacs_world(tmp_path, database_url, config(rules=[{**RULE, "deidentify": {}}])) as made:
        yield made


def traces(folder: Path) -> set[str]:
    found = (path for path in (folder / "data").rglob("*") if path.is_file() and b"KANARIE" in path.read_bytes())
    return {path.suffix if path.suffix == ".identity" else path.parent.name for path in found}


def test_the_shelf_holds_no_patient_and_the_job_knows_whose_it_is(world: PacsWorld, tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct", patient="KANARIE^ANNA")
    originals = [pydicom.dcmread(path) for path in paths]
    world.put(paths[:2])
    world.put(paths[2:])
    world.put(paths[:1], complete=True)  # once more
    (row,) = series_rows(world)
    assert row["study_uid"] != originals[0].StudyInstanceUID
    assert traces(tmp_path) == {".identity"}
    for path in (tmp_path / "data/pacs").rglob("*.identity"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert world.pacs.handover.hand_over_due() == 1
    (job,) = world.jobs()
    identity = Identity.from_bytes(world.here.jobs.identities.of(job.id) or b"")
    assert sorted(identity.uids.values()) == sorted(
        {one.SOPInstanceUID for one in originals}
        | {originals[0][k].value for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    )
    assert identity.header["00100010"]["Value"] == [{"Alphabetic": "KANARIE^ANNA"}]


def test_text_in_the_pixels_is_refused_for_that_instance_alone(tmp_path: Path) -> None:
    def edit(dataset: Dataset, number: int) -> None:
        dataset.BurnedInAnnotation = "YES" if number == 1 else "NO"

    paths = write_series(tmp_path / "ct", edit=edit, patient="KANARIE^ANNA")
    with client_with(tmp_path, CONFIG) as client:
        answer = client.post("/dicom-web/studies", **related([path.read_bytes() for path in paths]))
        assert answer.status_code == 202
        assert reasons(answer.json(), "00081198") == [FailureReason.CANNOT_UNDERSTAND]
        stored = {item["00081155"]["Value"][0] for item in answer.json()["00081199"]["Value"]}
        # The sender is told of its own UIDs.
        assert stored == {str(pydicom.dcmread(path).SOPInstanceUID) for n, path in enumerate(paths) if n != 1}
    assert traces(tmp_path) == {".identity"}
