"""The PDF inside a DICOM object, so that it lies in the study (Encapsulated PDF Storage)."""

from __future__ import annotations

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, EncapsulatedPDFStorage, ExplicitVRLittleEndian

from app.reporting.dicom_objects import finished, instance
from app.reporting.material import Material
from app.reporting.pdf import pdf


def encapsulated_pdf(material: Material) -> Dataset:
    """PS3.3 A.45.1: the report as it is, with the attributes of the study around it."""
    body = pdf(material)
    identity = instance(material, "pdf")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(identity["sop_instance_uid"])
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.SOPInstanceUID = identity["sop_instance_uid"]
    dataset.SeriesInstanceUID = identity["series_instance_uid"]
    dataset.SeriesNumber = identity["series_number"]
    dataset.InstanceNumber = identity["instance_number"]
    dataset.Manufacturer = identity["manufacturer"]
    dataset.Modality = "DOC"
    dataset.ConversionType = "SYN"
    dataset.BurnedInAnnotation = "YES"
    dataset.RecognizableVisualFeatures = "NO"
    dataset.AcquisitionDateTime = None
    dataset.ContentDate = dataset.ContentTime = ""  # told when finished
    dataset.InstanceCreationDate = dataset.InstanceCreationTime = ""
    dataset.DocumentTitle = "Lung nodule report"
    dataset.ConceptNameCodeSequence = []
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = body + b"\0" * (len(body) % 2)
    dataset.EncapsulatedDocumentLength = len(body)
    dataset.SourceInstanceSequence = _source(material)
    return finished(dataset, material, "AI nodule report")


def _source(material: Material) -> list[Dataset]:
    """Each image that was analysed, once."""
    identity = material.findings.identity
    images = dict.fromkeys((i.sop_class_uid, i.sop_instance_uid) for i in (identity.slices if identity else ()))
    items = []
    for sop_class_uid, sop_instance_uid in images:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        items.append(item)
    return items
