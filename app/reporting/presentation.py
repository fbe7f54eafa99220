"""Boxes and labels over the original slices (GSPS), and the list of key images (KO)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom import pr, sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from app.inference.findings import DISCLAIMER, Nodule, SliceBox
from app.reporting import wording
from app.reporting.dicom_objects import (
    corners_px,
    distinct_images,
    equipment,
    evidence,
    finished,
    identities,
    instance,
    is_filled,
    key_boxes,
)
from app.reporting.identifiers import derived_uid, tracking_uid
from app.reporting.material import Material

_LUNG_WINDOW_HU = (-600.0, 1500.0)
_ORANGE = (230, 159, 0)
_LABEL_HEIGHT_PX = 12.0


def presentation_state(material: Material) -> Dataset:
    """A box on every slice that a nodule touches, its label on the key image, lung window.

    Raises
    ------
    ResultUnavailable
        ``no_nodules``.
    """
    keyed = {(nodule.id, box.index_z) for nodule, box in key_boxes(material, "gsps")}
    layer = pr.GraphicLayer("NODULES", 1, "Nodules marked by a program", hd.color.CIELabColor.from_rgb(*_ORANGE))
    by_slice: defaultdict[int, list[tuple[Nodule, SliceBox]]] = defaultdict(list)
    for nodule in material.findings.nodules:
        for box in nodule.slices:
            if not is_filled(material, box.index_z):
                by_slice[box.index_z].append((nodule, box))
    annotations = [_annotation(material, layer, by_slice[z], keyed) for z in sorted(by_slice)]
    center_hu, width_hu = _LUNG_WINDOW_HU
    dataset = pr.GrayscaleSoftcopyPresentationState(
        referenced_images=distinct_images(material, [by_slice[z][0][1] for z in sorted(by_slice)]),
        content_label="AI_NODULES",
        content_description="Lung nodules marked by a program",
        content_creator_name="Lungnodule^Program",
        graphic_layers=[layer],
        graphic_annotations=annotations,
        voi_lut_transformations=[pr.SoftcopyVOILUTTransformation(center_hu, width_hu, "LUNG")],
        **instance(material, "gsps"),
        **equipment(material),
    )
    dataset.BodyPartExamined = "CHEST"
    return finished(dataset, material, "AI nodule marks")


def key_objects(material: Material) -> Dataset:
    """The key image of each nodule.

    Raises
    ------
    ResultUnavailable
        ``no_nodules``.
    """
    boxes = [box for _, box in key_boxes(material, "ko")]
    model = material.findings.model
    device = sr.DeviceObserverIdentifyingAttributes(uid=derived_uid("device", model.sha256), name="lungnodule")
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=distinct_images(material, boxes),
        observer_device_context=sr.ObserverContext(codes.DCM.Device, device),
        description=f"{DISCLAIMER} {wording.outcome(material.findings)}",
    )
    frames = [identities(material)[box.index_z].frame_number for box in boxes]
    for item in content[0].ContentSequence:
        if item.ValueType == "IMAGE" and frames[0] is not None:
            numbers = sorted({frame for frame in frames if frame is not None})
            item.ReferencedSOPSequence[0].ReferencedFrameNumber = numbers[0] if len(numbers) == 1 else numbers
    dataset = hd.ko.KeyObjectSelectionDocument(evidence=evidence(material), content=content, **instance(material, "ko"))
    return finished(dataset, material, "AI key images")


def _annotation(
    material: Material,
    layer: pr.GraphicLayer,
    marks: Sequence[tuple[Nodule, SliceBox]],
    keyed: set[tuple[str, int]],
) -> pr.GraphicAnnotation:
    """Everything on one slice."""
    index_z = marks[0][1].index_z
    image = identities(material)[index_z]
    boxes = [
        pr.GraphicObject(
            graphic_type=pr.GraphicTypeValues.POLYLINE,
            graphic_data=np.array(corners_px(box)),
            units=pr.AnnotationUnitsValues.PIXEL,
            tracking_id=nodule.id,
            tracking_uid=tracking_uid(material.findings, nodule),
        )
        for nodule, box in marks
    ]
    labels = [_label(material, nodule, box) for nodule, box in marks if (nodule.id, index_z) in keyed]
    return pr.GraphicAnnotation(
        referenced_images=[material.originals.image(index_z)],
        referenced_frame_number=image.frame_number,
        graphic_layer=layer,
        graphic_objects=boxes,
        text_objects=labels or None,
    )


def _label(material: Material, nodule: Nodule, box: SliceBox) -> pr.TextObject:
    """Above the box, or below where there is no room."""
    (left, top), _, (right, bottom), *_ = corners_px(box)
    above = top >= 2 * _LABEL_HEIGHT_PX
    anchor = ((left + right) / 2, top if above else bottom)
    return pr.TextObject(
        text_value=f"{nodule.id}: {nodule.diameter_mm:.1f} mm, probability {wording.percent(nodule.probability)}",
        units=pr.AnnotationUnitsValues.PIXEL,
        anchor_point=anchor,
        anchor_point_visible=False,
        tracking_id=nodule.id,
        tracking_uid=tracking_uid(material.findings, nodule),
    )
