"""What a PACS gets of a de-identified scan: the same results, of the original images of the original patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.imaging.identity import Identity
from app.imaging.inputs import InputFile
from app.imaging.read_options import ReadLimits
from app.imaging.volume import DicomIdentity
from app.reporting.bundle import Bundle
from app.reporting.material import Report
from app.reporting.originals import Originals


def material_of(
    bundle: Bundle, files: Sequence[InputFile], limits: ReadLimits, scratch: Path | None, whose: bytes | None
) -> tuple[Report, Originals]:
    """What the forms of a stored answer are made of.

    Parameters
    ----------
    bundle, files
        As they are stored.
    limits, scratch
        As for `Originals`.
    whose
        The `Identity` that was kept where the scan was de-identified; None for one that is stored as it came.
    """
    identity = None if whose is None else Identity.from_bytes(whose)
    originals = Originals(files, bundle.findings, limits, scratch, identity)
    report = bundle.report
    if identity is None or bundle.findings.identity is None:
        return report, originals
    restored = _restored(bundle.findings.identity, identity)
    return replace(report, findings=replace(bundle.findings, identity=restored)), originals


def _restored(images: DicomIdentity, whose: Identity) -> DicomIdentity:
    frame = images.frame_of_reference_uid
    return replace(
        images,
        study_instance_uid=whose.uid(images.study_instance_uid),
        series_instance_uid=whose.uid(images.series_instance_uid),
        frame_of_reference_uid=None if frame is None else whose.uid(frame),
        slices=tuple(replace(each, sop_instance_uid=whose.uid(each.sop_instance_uid)) for each in images.slices),
    )
