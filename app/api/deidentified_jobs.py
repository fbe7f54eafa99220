"""The door of `/v1/jobs` where only de-identified scans may be stored.

A setting and no field of the form: whether patient data lie in the store is for whoever answers for it, not for whoever
sends a scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.api.job_desk import JobDesk
from app.disk_faults import full_disk_refused
from app.imaging.deidentification import Retained
from app.imaging.deidentified_upload import deidentified_upload
from app.imaging.errors import NotDeidentified
from app.imaging.inputs import InputFile
from app.imaging.pseudonyms import pseudonyms_in
from app.jobs.intake import Request
from app.settings import Settings


def take_in(desk: JobDesk, folder: Path, files: Sequence[InputFile], request: Request) -> str:
    """Store a scan and make its job, de-identified where the settings say so; gives the job's id. Blocks.

    Raises
    ------
    NotDeidentified
        It cannot be stored without its patient.
    LungNoduleError
        As `app.jobs.intake.Intake.accept`.
    """
    settings = desk.settings
    if settings.deidentify == "off":
        return desk.jobs.intake.accept(folder, files, request)
    copies, scratch = folder / "deidentified", folder / "scratch"
    with full_disk_refused():
        copies.mkdir(mode=0o700)
        scratch.mkdir(mode=0o700)
        pseudonyms = pseudonyms_in(settings.data_dir)
        how = pseudonyms, Retained(**dict.fromkeys(settings.deidentify_retain, True))
        kept, identity = deidentified_upload(files, copies, scratch, settings.read, how)
    order = request.order
    if order.series_uid is not None:
        order = replace(order, series_uid=pseudonyms.uid(order.series_uid))
    return desk.jobs.intake.accept(copies, kept, replace(request, order=order, identity=identity.to_bytes()))


def refuse_batches(settings: Settings) -> None:
    """A batch holds many patients, and whose each scan was is not kept apart for them.

    Raises
    ------
    NotDeidentified
        ``batches_not_deidentified``.
    """
    if settings.deidentify != "off":
        raise NotDeidentified(
            "This service de-identifies what it stores, and does so for single scans only. Send each to /v1/jobs.",
            code="batches_not_deidentified",
        )
