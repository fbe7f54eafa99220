"""The findings as Comprehensive 3D SR, TID 1500: what a PACS, a registry or another program can compute with."""

from __future__ import annotations

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from app.inference.findings import DISCLAIMER, Nodule, SliceBox
from app.reporting import codes as concepts
from app.reporting import judgement, wording
from app.reporting.codes import Quantity
from app.reporting.dicom_objects import (
    MANUFACTURER,
    code,
    corners_px,
    distinct_images,
    evidence,
    finished,
    identities,
    instance,
    source_image,
)
from app.reporting.identifiers import derived_uid, tracking_uid
from app.reporting.material import Material, key_slice
from app.reporting.outlines import Voxels
from app.reporting.segmentation import outlined

_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_AI = codes.cid7162.ArtificialIntelligence
Group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations
QUALITATIVE = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")


def structured_report(material: Material) -> Dataset:
    """TID 1500 with one measurement group (TID 1411) for each nodule; preliminary and unverified."""
    findings = material.findings
    segments = segments_of(material)
    groups: list[Group] = []
    for nodule in findings.nodules:
        groups += [nodule_group(material, nodule, *segments.get(nodule.id, (0, None))), *box_group(material, nodule)]
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=model_observer(material)),
        # Of CID 100, which the template asks for; "CT Chest" is not in it.
        procedure_reported=codes.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=groups or [placeholder_group(material)],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=key_images(material) or None,
    )
    if not groups:
        # The library asks for a group; the standard does not, and there is none to report.
        report[0].ContentSequence.pop()
    report[0].ContentSequence.append(_remarks(material))
    dataset = sr.Comprehensive3DSR(
        evidence=[*evidence(material), *segmentation_evidence(material, segments)],
        content=report[0],
        is_complete=True,
        is_final=False,
        is_verified=False,
        **instance(material, "sr"),
    )
    return finished(dataset, material, "AI nodule measurements")


def segments_of(material: Material) -> dict[str, tuple[int, Voxels]]:
    """Number of the segment and its voxels, by nodule."""
    return {nodule.id: (number, found) for number, (nodule, found) in enumerate(outlined(material), start=1)}


def key_images(material: Material) -> list[Dataset]:
    """For the image library; none of an Enhanced object."""
    boxes = [box for nodule in material.findings.nodules if (box := key_slice(nodule)) is not None]
    return distinct_images(material, boxes) if identities(material)[0].frame_number is None else []


def placeholder_group(material: Material) -> sr.MeasurementsAndQualitativeEvaluations:
    """For the library, which asks for a group where there is none; it is taken out again."""
    return sr.MeasurementsAndQualitativeEvaluations(sr.TrackingIdentifier(material.uid("none"), "none"))


def model_observer(material: Material) -> sr.ObserverContext:
    """The model, as the device that observed."""
    model = material.findings.model
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", model.sha256),
        name=f"{MANUFACTURER} {material.program_version}",
        manufacturer_name=MANUFACTURER,
        model_name=f"{model.name} {model.version}",
        serial_number=model.sha256,
    )
    return sr.ObserverContext(codes.DCM.Device, device)


def _algorithm(material: Material, *parameters: str) -> sr.AlgorithmIdentification:
    model = material.findings.model
    return sr.AlgorithmIdentification(
        name=model.name,
        version=model.version,
        parameters=[*parameters, f"manifest sha256 {model.sha256}", wording.operating_point(material.findings)],
        family=_AI,
        manufacturer=MANUFACTURER,
    )


def nodule_group(
    material: Material,
    nodule: Nodule,
    segment: int,
    voxels: Voxels | None,
    decision: sr.QualitativeEvaluation | None = None,
    *,
    measured: bool = True,
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """TID 1411; where a nodule has no outline, its boxes are the region.

    Parameters
    ----------
    material
        What the report is made of.
    nodule
        Of its findings.
    segment, voxels
        Of the nodule in the SEG; None where it has no outline.
    decision
        Of a person, where there is one.
    measured
        Whether to say what the model said of it.
    """
    measurements = [_measurement(material, quantity) for quantity in _quantities(material, nodule)]
    qualities = [*([decision] if decision else []), *(_qualities(material, nodule) if measured else [])]
    region = (
        {"referenced_segment": _referenced_segment(material, segment, voxels)}
        if voxels is not None
        else {"referenced_regions": [box_region(material, box) for box in nodule.slices]}
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(tracking_uid(material.findings, nodule), nodule.id),
        finding_type=code(concepts.NODULE),
        finding_category=code(concepts.MORPHOLOGICALLY_ABNORMAL),
        finding_sites=[_site(nodule)],
        algorithm_id=_algorithm(material),
        measurements=measurements if measured else None,
        qualitative_evaluations=qualities or None,
        **region,
    )


def _quantities(material: Material, nodule: Nodule) -> list[Quantity]:
    change = judgement.change_of(material.report.comparison, nodule.id)
    return [*concepts.quantities(nodule), *concepts.change_quantities(change.growth if change else None)]


def _measurement(material: Material, quantity: Quantity) -> sr.Measurement:
    """TID 300; a probability says what it means."""
    meant = {
        concepts.CERTAINTY: wording.meaning_of_probability(),
        concepts.PROBABILITY_OF_CANCER: wording.meaning_of_malignancy(material.findings),
    }.get(quantity.name)
    return sr.Measurement(
        name=code(quantity.name),
        value=quantity.value,
        unit=code(quantity.unit),
        derivation=code(quantity.derivation) if quantity.derivation else None,
        algorithm_id=_algorithm(material, meant) if meant else None,
        method=code(concepts.SUM_OF_VOXELS) if quantity.name == concepts.VOLUME else None,
    )


def box_group(material: Material, nodule: Nodule) -> list[sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    """TID 1410: the box on the key image, for readers that show no segmentation; the same nodule by its tracking UID.

    A group of its own, because TID 1411 takes a segment or regions and not both.
    """
    box = key_slice(nodule)
    if box is None:
        return []
    return [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(tracking_uid(material.findings, nodule), nodule.id),
            referenced_region=box_region(material, box),
            finding_type=code(concepts.NODULE),
            finding_category=code(concepts.MORPHOLOGICALLY_ABNORMAL),
            finding_sites=[_site(nodule)],
            geometric_purpose=code(concepts.BOUNDED_BY),
            algorithm_id=_algorithm(material),
        )
    ]


def _site(nodule: Nodule) -> sr.FindingSite:
    side = code(concepts.LATERALITY[nodule.side]) if nodule.side else None
    return sr.FindingSite(code(concepts.finding_site(nodule)), laterality=side)


def _qualities(material: Material, nodule: Nodule) -> list[sr.QualitativeEvaluation]:
    told = concepts.qualities(nodule)
    category = judgement.category_of(material.report.assessed(nodule), "lung_rads_v2022")
    if category is not None:
        told.append((concepts.LUNG_RADS, concepts.lung_rads(category)))
    return [sr.QualitativeEvaluation(code(name), code(value)) for name, value in told]


def box_region(material: Material, box: SliceBox) -> sr.ImageRegion:
    """A box as a closed line on its image."""
    outline = np.array(corners_px(box))
    return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, outline, source_image(material, box))


def _referenced_segment(material: Material, segment: int, voxels: Voxels) -> sr.ReferencedSegment:
    """The segment, and the images that it lies on."""
    shown = [identities(material)[int(z)] for z in np.unique(voxels[:, 0])]
    if shown[0].frame_number is None:
        images = [sr.SourceImageForSegmentation(image.sop_class_uid, image.sop_instance_uid) for image in shown]
    else:
        frames = [image.frame_number or 1 for image in shown]
        images = [sr.SourceImageForSegmentation(shown[0].sop_class_uid, shown[0].sop_instance_uid, frames)]
    return sr.ReferencedSegment(_SEG, material.uid("instance", "seg"), segment, source_images=images)


def segmentation_evidence(material: Material, segments: dict[str, tuple[int, Voxels]]) -> list[Dataset]:
    """The SEG as evidence: what is referred to must be listed."""
    if not segments:
        return []
    reference = evidence(material)[0]
    reference.Modality = "SEG"
    reference.SeriesInstanceUID = material.uid("series", "seg")
    reference.SOPClassUID, reference.SOPInstanceUID = _SEG, material.uid("instance", "seg")
    return [reference]


def _remarks(material: Material) -> Dataset:
    """What a person who reads the report must know, and whether there is a nodule at all."""
    findings = material.findings
    container = sr.ContainerContentItem(QUALITATIVE, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    container.ContentSequence = sr.ContentSequence()
    if not findings.nodules:
        container.ContentSequence.append(
            sr.CodeContentItem(
                code(concepts.NODULE), code(concepts.ABSENT), relationship_type=sr.RelationshipTypeValues.CONTAINS
            )
        )
    for sentence in (
        DISCLAIMER,
        f"{wording.PRELIMINARY} {wording.outcome(findings)}",
        wording.meaning_of_probability(),
        wording.meaning_of_malignancy(findings),
        *(notice.message for notice in (*findings.acceptance.warnings, *findings.warnings)),
        *judgement.sentences(material.report),
    ):
        container.ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, sentence, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    return container
