"""The input of a workitem becomes a job: fetched from a PACS that the configuration names, stored, put in line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from app.imaging.deidentified_upload import deidentified_upload
from app.imaging.errors import ScanError
from app.imaging.inputs import InputFile
from app.imaging.pseudonyms import pseudonyms_in
from app.jobs.installation import Jobs
from app.jobs.intake import Request
from app.jobs.records import IdempotencyMismatch
from app.jobs.rows import Who
from app.pacs.config import WebTarget, Worklist
from app.pacs.errors import InstanceRefused
from app.pacs.handover import MakeOrder
from app.pacs.instances import read_instance
from app.pacs.ups_client import is_uid, items_of
from app.pacs.wado import fetch_series

WORKLIST = Who("worklist")
_MOST_SERIES = 50


class UnusableInput(ScanError):
    """The workitem names nothing that can be analysed."""

    default_code = "input_missing"


@dataclass(frozen=True)
class InputDesk:
    """Makes jobs of workitems.

    Parameters
    ----------
    jobs
        Of the installation.
    settings, source
        The worklist, and the PACS that its input is fetched from.
    make_order
        What is asked for.
    incoming
        Folder of this process in the store's ``incoming``.
    """

    jobs: Jobs
    settings: Worklist
    source: WebTarget
    make_order: MakeOrder
    incoming: Path

    def known_job(self, key: str) -> str | None:
        """The job that was made of the workitem before this process was killed."""
        return self.jobs.intake.job_of_key(key, self.jobs.settings.pacs_tenant)

    def take_in(self, workitem: Dataset, key: str) -> str:
        """Make the job, once for each ``key``; gives its id.

        Raises
        ------
        ScanError, OptionError
            Trying again would not help.
        LungNoduleError
            It may.
        """
        folder = Path(tempfile.mkdtemp(dir=self.incoming))
        try:
            files = self._fetched(workitem, folder)
            if not files:
                raise UnusableInput("The input holds no CT image.", code="no_ct_image")
            return self._accepted(files, folder, key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetched(self, workitem: Dataset, folder: Path) -> dict[Path, str]:
        """CT images of the input in one folder, each with its SeriesInstanceUID."""
        kept: dict[Path, str] = {}
        together = folder / "input"
        together.mkdir()
        for number, ((study, series), wanted) in enumerate(sorted(references(workitem).items())):
            part = folder / f"series-{number}"
            part.mkdir()
            for file in fetch_series(self.source, study, series, part, self.settings.max_series_bytes):
                try:
                    instance = read_instance(file.path)
                except InstanceRefused:
                    continue  # of a whole study the reports are fetched, too
                if not wanted or instance.sop_uid in wanted:
                    kept[file.path.rename(together / f"{len(kept):06d}")] = instance.series_uid
        return kept

    def _accepted(self, fetched: Mapping[Path, str], folder: Path, key: str) -> str:
        together = folder / "input"
        files = [InputFile(path, f"{path.name}.dcm") for path in fetched]
        series = set(fetched.values())
        series_uid = series.pop() if len(series) == 1 else None
        identity = None
        if self.settings.deidentify is not None:
            copies, scratch = folder / "deidentified", folder / "scratch"
            copies.mkdir()
            scratch.mkdir()
            limits, data_dir = self.jobs.settings.read, self.jobs.settings.data_dir
            how = pseudonyms_in(data_dir), self.settings.deidentify.retained
            files, whose = deidentified_upload(files, copies, scratch, limits, how)
            together, identity = copies, whose.to_bytes()
            series_uid = how[0].uid(series_uid) if series_uid else None
        order = self.make_order(self.settings.as_rule, series_uid)
        try:
            who = replace(WORKLIST, tenant=self.jobs.settings.pacs_tenant)
            return self.jobs.intake.accept(together, files, Request(order, who, key, identity=identity))
        except IdempotencyMismatch:
            known = self.known_job(key)
            if known is None:  # erased at this moment
                raise
            return known


def references(workitem: Dataset) -> dict[tuple[str, str], set[str]]:
    """Study and series of the input, each with the SOPInstanceUIDs that are named; none named: all.

    Raises
    ------
    UnusableInput
        There is none, or its UIDs are not valid.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for item in items_of(workitem, "InputInformationSequence"):
        study, series = str(item.get("StudyInstanceUID", "")), str(item.get("SeriesInstanceUID", ""))
        named = {str(one.get("ReferencedSOPInstanceUID", "")) for one in items_of(item, "ReferencedSOPSequence")}
        if not (is_uid(study) and is_uid(series)):
            raise UnusableInput("The input has no valid StudyInstanceUID and SeriesInstanceUID.")
        found.setdefault((study, series), set()).update(named)
    if not found or len(found) > _MOST_SERIES:
        raise UnusableInput(f"The input names {len(found)} series; 1 to {_MOST_SERIES} are taken.")
    return found
