"""The outlines as a DICOM Segmentation on the original slices."""

from __future__ import annotations

from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from app.inference.findings import Nodule
from app.reporting import wording
from app.reporting.codes import LATERALITY, MORPHOLOGICALLY_ABNORMAL, NODULE, finding_site
from app.reporting.dicom_objects import code, equipment, finished, identities, instance, is_filled
from app.reporting.errors import boxes_only, no_nodules
from app.reporting.identifiers import tracking_uid
from app.reporting.material import Material
from app.reporting.outlines import Voxels, label_planes, original_voxels

_AI = hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence")
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
"""Told apart with any colour vision (Okabe and Ito 2008)."""


def outlined(material: Material) -> list[tuple[Nodule, Voxels]]:
    """Nodules in the order of their segments, 1 first, with their voxels on the images."""
    grid = material.findings.grid
    masks = ((nodule, nodule.mask) for nodule in material.findings.nodules)
    voxels = ((nodule, original_voxels(mask, grid)) for nodule, mask in masks if mask is not None)
    on_images = (
        (nodule, found[[not is_filled(material, int(z)) for z in found[:, 0]]] if len(found) else found)
        for nodule, found in voxels
    )
    return [(nodule, found) for nodule, found in on_images if len(found)]


def segmentation(material: Material) -> Dataset:
    """One segment for each nodule, binary, only slices that hold one.

    Raises
    ------
    ResultUnavailable
        ``no_nodules`` or ``boxes_only``.
    """
    found = outlined(material)
    if not found:
        nodules = material.findings.nodules
        raise boxes_only("seg") if any(nodule.mask is None for nodule in nodules) else no_nodules("seg")
    slices, planes = label_planes([voxels for _, voxels in found], material.findings.grid)
    descriptions = [_segment(material, nodule, number) for number, (nodule, _) in enumerate(found, start=1)]
    places: dict[str, Any] = {}
    if identities(material)[0].frame_number is None:
        images = [material.originals.image(z) for z in slices]
    else:
        images = [material.originals.image(0)]
        frames = images[0].PerFrameFunctionalGroupsSequence
        numbers = [identities(material)[z].frame_number or 1 for z in slices]
        positions = (frames[n - 1].PlanePositionSequence[0].ImagePositionPatient for n in numbers)
        system = hd.CoordinateSystemNames.PATIENT
        places["plane_positions"] = [hd.PlanePositionSequence(system, position) for position in positions]
    dataset = hd.seg.Segmentation(
        source_images=images,
        pixel_array=planes.astype(np.uint8) if len(found) < 256 else planes,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        content_label="NODULES",
        content_description="Lung nodules outlined by a program",
        content_creator_name="Lungnodule^Program",
        **instance(material, "seg"),
        **equipment(material),
        **places,
    )
    _fix_dimensions(dataset, material)
    dataset.BodyPartExamined = "CHEST"
    return finished(dataset, material, "AI nodule outlines")


def _segment(material: Material, nodule: Nodule, number: int) -> hd.seg.SegmentDescription:
    model = material.findings.model
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{nodule.id} ({wording.percent(nodule.probability)})",
        segmented_property_category=code(MORPHOLOGICALLY_ABNORMAL),
        segmented_property_type=code(NODULE),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name, family=_AI, version=model.version, parameters={"manifest_sha256": model.sha256}
        ),
        tracking_uid=tracking_uid(material.findings, nodule),
        tracking_id=nodule.id,
        anatomic_regions=[code(finding_site(nodule))],
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[(number - 1) % len(_COLOURS)]),
    )
    if nodule.side is not None:
        side = hd.sr.CodedConcept(*LATERALITY[nodule.side])
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [side]
    return description


def _fix_dimensions(dataset: Dataset, material: Material) -> None:
    """The library draws this UID at random; the same answer must be the same object."""
    uid = material.uid("dimensions")
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
