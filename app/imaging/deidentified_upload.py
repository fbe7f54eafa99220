"""A whole upload without its patient: DICOM CT is rewritten, archives are opened, everything else is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.imaging.deidentification import Retained, deidentify
from app.imaging.errors import NotDeidentified
from app.imaging.identity import Identity, merged
from app.imaging.inputs import InputFile
from app.imaging.pseudonyms import Pseudonyms
from app.imaging.read_options import ReadLimits
from app.imaging.reading import sort_received


def deidentified_upload(
    files: Sequence[InputFile], folder: Path, scratch: Path, limits: ReadLimits, how: tuple[Pseudonyms, Retained]
) -> tuple[list[InputFile], Identity]:
    """De-identified copies of the CT images of an upload, and whose they were.

    Parameters
    ----------
    files
        As they were sent.
    folder
        Empty; gets the copies, under numbers: a sender's file names may name the patient.
    scratch
        Folder for what has to be inflated; the caller removes it.
    limits
        Of the reader.
    how
        Pseudonyms, and what is spared.

    Raises
    ------
    NotDeidentified
        ``needs_dicom``: a volume file, whose header may hold anything. ``nothing_left``: no CT image. And what
        `deidentify` raises.
    ScanError
        The upload cannot be read.
    """
    received = sort_received(files, scratch, limits)
    if received.volumes:
        raise NotDeidentified(
            "This service de-identifies what it stores, and can do so with DICOM only. Send the DICOM series.",
            code="needs_dicom",
        )
    kept: list[InputFile] = []
    identities: list[Identity] = []
    for file in received.dicom:
        name = f"{len(kept):06d}"
        try:
            identities.append(deidentify(file, folder / name, scratch, limits, *how))
        except NotDeidentified as refusal:
            if refusal.code != "not_ct_image":
                raise
        else:
            kept.append(InputFile(folder / name, f"{name}.dcm"))
    if not kept:
        raise NotDeidentified("There is no CT image in the upload. Send a CT series.", code="nothing_left")
    return kept, merged(identities)
