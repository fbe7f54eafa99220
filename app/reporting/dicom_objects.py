"""What all DICOM objects of a result have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from typing import Any

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from app.imaging.volume import SliceIdentity
from app.inference.findings import DISCLAIMER, Nodule, SliceBox
from app.reporting.codes import Concept
from app.reporting.errors import no_nodules
from app.reporting.material import Material, key_slice
from app.reporting.reference_images import PATIENT_AND_STUDY

MANUFACTURER = "lungnodule"
"""By it a PACS rule, and we, know our own objects."""
SERIES_NUMBERS = {"sr": 9101, "seg": 9102, "gsps": 9103, "ko": 9104, "sc": 9105, "pdf": 9106, "review": 9107}
_IMPLEMENTATION_CLASS_UID = "2.25.172964826430275041262318471012385236143"


def code(concept: Concept) -> Code:
    """A concept as pydicom and highdicom take it."""
    return Code(concept.value, concept.scheme, concept.meaning)


def instance(material: Material, kind: str) -> dict[str, Any]:
    """Identity of the one object of this kind, as arguments of highdicom's constructors."""
    return {
        "series_instance_uid": material.uid("series", kind),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": material.uid("instance", kind),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
    }


def equipment(material: Material) -> dict[str, Any]:
    """The rest of the Enhanced General Equipment module; the serial number is the model's digest."""
    return {
        "manufacturer_model_name": material.findings.model.name,
        "software_versions": material.program_version,
        "device_serial_number": material.findings.model.sha256[:16],
    }


def finished(dataset: Dataset, material: Material, description: str, made_at: datetime | None = None) -> Dataset:
    """Say who, when and what for in the words that all objects share; without a time, that of the findings."""
    reference = material.originals.image(0)
    for keyword in PATIENT_AND_STUDY:
        if keyword in reference:
            dataset[keyword] = deepcopy(reference[keyword])  # pydicom changes an element in place
    local = local_time(made_at or material.made_at, reference)
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S.%f")
    for prefix in ("Content", "Series", "InstanceCreation", "PresentationCreation"):
        if f"{prefix}Date" in dataset or prefix == "Series":
            setattr(dataset, f"{prefix}Date", date)
            setattr(dataset, f"{prefix}Time", time)
    if "DateOfSecondaryCapture" in dataset:
        dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = date, time
    for contribution in dataset.get("ContributingEquipmentSequence", []):
        contribution.ContributionDateTime = date + time  # highdicom takes the clock's
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = f"{description}. {DISCLAIMER}"[:64]
    dataset.ManufacturerModelName = material.findings.model.name
    dataset.SoftwareVersions = material.program_version
    dataset.DeviceSerialNumber = material.findings.model.sha256[:16]
    dataset.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = "LUNGNODULE"
    return dataset


def in_bytes(dataset: Dataset) -> bytes:
    """As a DICOM file, with an empty preamble."""
    written = BytesIO()
    pydicom.dcmwrite(written, dataset, enforce_file_format=True)
    return written.getvalue()


def evidence(material: Material) -> list[Dataset]:
    """Every image of the series that was analysed, each once."""
    slices = {image.sop_instance_uid: image for image in identities(material)}
    return [_reference(material, image) for image in slices.values()]


def identities(material: Material) -> tuple[SliceIdentity, ...]:
    """One for each slice of the volume."""
    identity = material.findings.identity
    return identity.slices if identity else ()


def is_filled(material: Material, z: int) -> bool:
    """Whether a slice was interpolated: it carries the name of the one before and is on no image."""
    slices = identities(material)
    return z > 0 and slices[z] == slices[z - 1]


def key_boxes(material: Material, kind: str) -> list[tuple[Nodule, SliceBox]]:
    """Each nodule with the box on its key image.

    Raises
    ------
    ResultUnavailable
        ``no_nodules``.
    """
    keyed = ((nodule, key_slice(nodule)) for nodule in material.findings.nodules)
    found = [(nodule, box) for nodule, box in keyed if box is not None]
    if not found:
        raise no_nodules(kind)
    return found


def source_image(material: Material, box: SliceBox) -> hd.sr.SourceImageForRegion:
    """The image, or the frame of one, that a box lies on."""
    image = identities(material)[box.index_z]
    frames = None if image.frame_number is None else [image.frame_number]
    return hd.sr.SourceImageForRegion(image.sop_class_uid, image.sop_instance_uid, frames)


def distinct_images(material: Material, boxes: Iterable[SliceBox]) -> list[Dataset]:
    """Headers of the images that boxes lie on, each once."""
    uids = dict.fromkeys(material.originals.slice_uid(box.index_z) for box in boxes)
    return [material.originals.images[uid] for uid in uids]


def corners_px(box: SliceBox) -> Sequence[tuple[float, float]]:
    """Corners (column, row) of a closed outline, from the upper left, where 0, 0 is the image's very corner.

    DICOM's graphics count from there (PS3.3 C.10.5, C.18.6); a box counts from the centre of the first pixel.
    """
    left, top, right, bottom = (value + 0.5 for value in box.box_px)
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def _reference(material: Material, image: SliceIdentity) -> Dataset:
    """Enough of an image to refer to it."""
    reference, first = Dataset(), material.originals.image(0)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "Modality", *PATIENT_AND_STUDY):
        if keyword in first:
            reference[keyword] = deepcopy(first[keyword])
    reference.SpecificCharacterSet = "ISO_IR 192"
    reference.SOPClassUID, reference.SOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    return reference


def local_time(moment: datetime, reference: Dataset) -> datetime:
    """In the time zone that the images name, else in UTC: PS3.3 C.12.1.1.8 makes the offset count for all times."""
    offset = str(reference.get("TimezoneOffsetFromUTC", "") or "+0000")
    sign, hours, minutes = offset[0], offset[1:3], offset[3:5]
    if sign not in "+-" or not (hours + minutes).isdigit() or len(minutes) != 2:
        return moment.astimezone(UTC)
    shift = timedelta(hours=int(hours), minutes=int(minutes))
    return moment.astimezone(timezone(shift if sign == "+" else -shift))
