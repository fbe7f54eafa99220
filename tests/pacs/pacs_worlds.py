"""A PACS connection without its threads: what is due is done when a test says so. And small CT series to send."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from app.imaging.volume import CtVolume, Grid
from app.pacs.config import PacsConfig
from app.pacs.installation import Pacs, open_pacs
from app.pacs.instances import read_instance
from app.phantom.dicom_headers import PhantomPatient, SeriesAttributes, phantom_uid
from app.phantom.dicom_series import write_dicom_series
from tests.jobs.installations import ORDER, World, world

RULE = {"name": "chest", "body_part": ["CHEST"], "min_instances": 3, "send": [{"target": "archive", "kinds": ["sc"]}]}
ARCHIVE = {"kind": "dicomweb", "url": "http://127.0.0.1:9/dicom-web", "timeout_s": 5}


def config(**changes: Any) -> PacsConfig:
    """A rule for chests in three slices or more, sent to one archive."""
    return PacsConfig.model_validate({"targets": {"archive": ARCHIVE}, "rules": [RULE], **changes})


def write_series(
    folder: Path,
    *,
    slices: int = 4,
    number: int = 1,
    patient: str = "PHANTOM^CHEST",
    edit: Callable[[Dataset, int], None] | None = None,
    **said: Any,
) -> list[Path]:
    """A tiny CT series; ``number`` makes it another one of the same study, ``patient`` one of another study."""
    hu = np.full((slices, 8, 8), -800 + number, np.int16)
    volume = CtVolume(hu, Grid.from_spacing(hu.shape, (2.0, 1.0, 1.0)))
    series = SeriesAttributes(series_number=number, **said)
    return write_dicom_series(volume, folder, patient=PhantomPatient(name=patient), series=series, edit=edit)


def objects_of(studies: dict[str, tuple[str, str]]) -> Callable[[str, Sequence[str]], list[Dataset]]:
    """Stands in for `app.reporting`: one capture for each kind in the job's study, the same UIDs every time."""

    def make(job_id: str, kinds: Sequence[str]) -> list[Dataset]:
        study_uid, patient_id = studies.get(job_id, ("1.2.3", "P"))
        return [capture(job_id, kind, study_uid, patient_id) for kind in kinds]

    return make


def capture(job_id: str, kind: str, study_uid: str, patient_id: str = "PHANTOM-0001") -> Dataset:
    """A small valid Secondary Capture."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = phantom_uid(job_id, kind)
    made.StudyInstanceUID, made.SeriesInstanceUID = study_uid, phantom_uid(job_id, kind, "series")
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "PHANTOM^CHEST", patient_id, "", "O"
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20260101", "120000", "1", ""
    made.ReferringPhysicianName, made.Modality, made.ConversionType = "", "OT", "SYN"
    made.SeriesNumber, made.InstanceNumber, made.SeriesDescription = 900, 1, f"AI {kind}: not for diagnosis"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows = made.Columns = 4
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = bytes(16)
    return made


@dataclass
class PacsWorld:
    """An installation whose engine and whose chores run by hand."""

    here: World
    pacs: Pacs
    folder: Path
    studies: dict[str, tuple[str, str]] = field(default_factory=dict)

    def put(self, paths: Sequence[Path], *, complete: bool = False) -> None:
        """As if they had just been received."""
        received = []
        for path in paths:
            copy = self.pacs.scratch / f"{len(list(self.pacs.scratch.iterdir())):06d}"
            copy.write_bytes(path.read_bytes())
            received.append(self.pacs.shelf.taken(copy, read_instance(copy)))
        self.pacs.shelf.put(received, complete=complete)

    def jobs(self) -> list[Any]:
        """Every job, the oldest first."""
        from app.jobs.lookup import Filters  # noqa: PLC0415

        return list(reversed(self.here.jobs.lookup.jobs(Filters(), 100)))


@contextmanager
def pacs_world(
    folder: Path, database_url: str | None = None, chosen: PacsConfig | None = None, **settings: Any
) -> Iterator[PacsWorld]:
    """`PacsWorld` with its data under ``folder``."""
    studies: dict[str, tuple[str, str]] = {}
    with (
        world(folder, database_url, **settings) as here,
        open_pacs(here.jobs, chosen or config(), lambda _rule, _uid: ORDER, objects_of(studies)) as pacs,
    ):
        yield PacsWorld(here, pacs, folder, studies)


def study_of(path: Path) -> str:
    """StudyInstanceUID of a file."""
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)
