"""An answer with a person's decisions, as Comprehensive 3D SR, TID 1500: what the model said and what a reader decided.

The AI's own report stays as it is and is named as the predecessor. Here a nodule that the reader accepted, or has not
decided on, carries the model's measurements; a rejected one is named and placed, but carries none, so that nobody who
computes with the report counts it. What the reader added carries no algorithm: it is the person's own. Only a review
that its reader calls finished is VERIFIED, by that reader.
"""

from __future__ import annotations

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from app.inference.findings import DISCLAIMER, SliceBox
from app.reporting import codes as concepts
from app.reporting import structured_report as draft
from app.reporting.dicom_objects import code, evidence, finished, instance, local_time
from app.reporting.identifiers import derived_uid
from app.reporting.material import Material
from app.reporting.outlines import Voxels
from app.reporting.review import AddedNodule, KeptReview

_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_NO_ORGANISATION = "Not told"


def reviewed_report(material: Material, review: KeptReview) -> Dataset:
    """TID 1500 of a reviewed answer; another revision is another object.

    Parameters
    ----------
    material
        The answer and its images.
    review
        What was decided.
    """
    segments = draft.segments_of(material)
    groups = [*_decided(material, review, segments), *(_added(material, one) for one in review.added)]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_person_context=sr.ObserverContext(
                codes.DCM.Person, sr.PersonObserverIdentifyingAttributes(name=person_name(review.reviewer))
            ),
            observer_device_context=draft.model_observer(material),
        ),
        procedure_reported=codes.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=groups or [draft.placeholder_group(material)],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=draft.key_images(material) or None,
    )
    if not groups:
        report[0].ContentSequence.pop()
    report[0].ContentSequence.append(_remarks(material, review))
    institution = str(material.originals.image(0).get("InstitutionName", "") or "")
    dataset = sr.Comprehensive3DSR(
        evidence=[*evidence(material), *draft.segmentation_evidence(material, segments)],
        content=report[0],
        is_complete=review.finished,
        is_final=review.finished,
        is_verified=review.finished,
        verifying_observer_name=person_name(review.reviewer) if review.finished else None,
        verifying_organization=(institution or _NO_ORGANISATION) if review.finished else None,
        previous_versions=[_ai_draft(material)],
        **instance(material, "review"),
    )
    return _dated(dataset, material, review)


def person_name(reviewer: str) -> str:
    """As DICOM writes it; a name without its parts told apart is all family name, rather than guessed at."""
    return reviewer if "^" in reviewer else f"{reviewer}^"


def _dated(dataset: Dataset, material: Material, review: KeptReview) -> Dataset:
    dataset = finished(dataset, material, "Reviewed nodules", review.updated_at)
    uid = material.uid("instance", "review", str(review.revision), review.model_dump_json())
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.InstanceNumber = review.revision
    local = local_time(review.updated_at, material.originals.image(0))
    for observer in dataset.get("VerifyingObserverSequence", []):
        observer.VerificationDateTime = local.strftime("%Y%m%d%H%M%S.%f")  # the library takes the clock's
    return dataset


def _decided(material: Material, review: KeptReview, segments: dict[str, tuple[int, Voxels]]) -> list[draft.Group]:
    groups: list[draft.Group] = []
    for nodule in material.findings.nodules:
        decision = review.decision_on(nodule.id)
        word = decision.decision if decision else "undecided"
        rejected = word == "rejected"
        segment, voxels = segments.get(nodule.id, (0, None))
        groups.append(draft.nodule_group(material, nodule, segment, voxels, _evaluation(word), measured=not rejected))
        if not rejected:
            groups += draft.box_group(material, nodule)
    return groups


def _added(material: Material, added: AddedNodule) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410: the person's own mark on the nearest slice, without an algorithm."""
    place = ",".join(f"{value:.2f}" for value in (*added.center_lps_mm, added.diameter_mm))
    diameter = concepts.Quantity(concepts.DIAMETER, round(added.diameter_mm, 2), concepts.MM)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(derived_uid(material.uid("added"), place), f"added at {place}"[:64]),
        referenced_region=draft.box_region(material, _box(material, added)),
        finding_type=code(concepts.NODULE),
        finding_category=code(concepts.MORPHOLOGICALLY_ABNORMAL),
        finding_sites=[sr.FindingSite(code(concepts.LUNG))],
        geometric_purpose=code(concepts.BOUNDED_BY),
        measurements=[sr.Measurement(code(diameter.name), diameter.value, code(diameter.unit))],
        qualitative_evaluations=[_evaluation("added")],
    )


def _box(material: Material, added: AddedNodule) -> SliceBox:
    """The square around an added nodule on the slice nearest to its centre."""
    grid = material.findings.grid
    z, y, x = grid.to_index(added.center_lps_mm)
    _, row_mm, column_mm = grid.spacing_zyx_mm
    down, across = added.diameter_mm / 2 / row_mm, added.diameter_mm / 2 / column_mm
    rows, columns = grid.shape_zyx[1:]
    box = (
        float(max(x - across, -0.5)),
        float(max(y - down, -0.5)),
        float(min(x + across, columns - 0.5)),
        float(min(y + down, rows - 0.5)),
    )
    return SliceBox(int(np.clip(np.rint(z), 0, grid.shape_zyx[0] - 1)), box)


def _evaluation(word: str) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(code(concepts.DECISION), code(concepts.DECISIONS[word]))


def _ai_draft(material: Material) -> Dataset:
    """The model's own report, as it is made of the same answer."""
    reference = evidence(material)[0]
    reference.Modality = "SR"
    reference.SeriesInstanceUID = material.uid("series", "sr")
    reference.SOPClassUID, reference.SOPInstanceUID = _SR, material.uid("instance", "sr")
    return reference


def _remarks(material: Material, review: KeptReview) -> Dataset:
    """What a person who reads the report must know: who decided, when, and in which words."""
    container = sr.ContainerContentItem(draft.QUALITATIVE, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence()
    for sentence in (DISCLAIMER, *_sentences(material, review)):
        container.ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, sentence, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    return container


def _sentences(material: Material, review: KeptReview) -> list[str]:
    model, nodules = material.findings.model, material.findings.nodules
    accepted, rejected = review.count("accepted"), review.count("rejected")
    state = "finished" if review.finished else "not finished"
    undecided = len(nodules) - accepted - rejected
    when = review.updated_at.isoformat(timespec="seconds")
    told = [
        f"AI draft by {model.name} {model.version}: {len(nodules)} nodules. Its report is the predecessor document.",
        f"Reviewed by {review.reviewer} at {when}, revision {review.revision}, {state}.",
        f"{accepted} accepted, {rejected} rejected, {undecided} not decided, {len(review.added)} added.",
        "Measurements of accepted nodules are those of the AI. Rejected nodules are listed without measurements.",
        "Added nodules are the reviewer's own.",
    ]
    told += [f"{one.nodule_id} {one.decision}: {one.note}" for one in review.decisions if one.note]
    return told + [
        f"added at {', '.join(f'{value:.1f}' for value in one.center_lps_mm)} mm (LPS): {one.note}"
        for one in review.added
        if one.note
    ]
