"""The findings as FHIR R4: a collection of one DiagnosticReport and an Observation for each nodule."""

from __future__ import annotations

import json
import uuid
from typing import Any

from app.inference.findings import DISCLAIMER, Nodule
from app.reporting import codes, wording
from app.reporting.codes import Concept
from app.reporting.identifiers import tracking_uid
from app.reporting.material import Material

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    "RADLEX": "http://www.radlex.org",
    "RADELEMENT": "http://radelement.org",
}
_PULMONARY_NODULE = Concept("RDES195", "RADELEMENT", "Pulmonary Nodule")
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_DICOM_UID = "urn:dicom:uid"


def fhir_bundle(material: Material) -> bytes:
    """JSON of the Bundle; the status is preliminary, and the patient is referred to by the ID in the images."""
    observations = [_observation(material, nodule) for nodule in material.findings.nodules]
    entries = [_report(material, observations), *observations]
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "timestamp": material.made_at.isoformat(),
        "entry": [{"fullUrl": f"urn:uuid:{entry['id']}", "resource": entry} for entry in entries],
    }
    return json.dumps(bundle, ensure_ascii=False, indent=1).encode()


def _report(material: Material, observations: list[dict[str, Any]]) -> dict[str, Any]:
    findings = material.findings
    return {
        "resourceType": "DiagnosticReport",
        "id": _id(material, "report"),
        "status": "preliminary",
        "category": [_coded(Concept("CTH", "http://terminology.hl7.org/CodeSystem/v2-0074", "Cat scan"))],
        "code": _coded(codes.CHEST_CT),
        **_shared(material),
        **_study(material),
        "issued": material.made_at.isoformat(),
        "performer": [{"display": f"{wording.model(findings)}, program {material.program_version}"}],
        "result": [{"reference": f"urn:uuid:{each['id']}"} for each in observations],
        "conclusion": " ".join(
            (
                DISCLAIMER,
                wording.PRELIMINARY,
                wording.outcome(findings),
                wording.meaning_of_probability(),
                wording.meaning_of_malignancy(findings),
            )
        ),
    }


def _observation(material: Material, nodule: Nodule) -> dict[str, Any]:
    findings = material.findings
    site = codes.finding_site(nodule)
    sides = [codes.LATERALITY[nodule.side]] if nodule.side else []
    components = [_component(q.name, {"valueQuantity": _quantity(q.value, q.unit)}) for q in codes.quantities(nodule)]
    if kind := codes.KINDS.get(nodule.kind or ""):
        components.append(_component(codes.COMPOSITION, {"valueCodeableConcept": _coded(kind)}))
    return {
        "resourceType": "Observation",
        "id": _id(material, nodule.id),
        "identifier": [{"system": _DICOM_UID, "value": f"urn:oid:{tracking_uid(findings, nodule)}"}],
        "status": "preliminary",
        "category": [{"coding": [{"system": _CATEGORY, "code": "imaging"}]}],
        "code": _coded(_PULMONARY_NODULE, codes.NODULE),
        **_shared(material),
        "issued": material.made_at.isoformat(),
        "valueCodeableConcept": {"text": f"{nodule.id}, {wording.place(nodule)}, {wording.images(nodule)}"},
        "bodySite": {**_coded(site, *sides), "text": wording.place(nodule)},
        "device": {"display": f"{wording.model(findings)}, manifest sha256 {findings.model.sha256}"},
        "note": [
            {"text": text}
            for text in (DISCLAIMER, wording.meaning_of_probability(), wording.meaning_of_malignancy(findings))
        ],
        "component": components,
    }


def _shared(material: Material) -> dict[str, Any]:
    """Of whom, and when."""
    if not material.originals.is_dicom:
        return {}
    image = material.originals.image(0)
    patient_id = str(image.PatientID or "")
    told: dict[str, Any] = {}
    if patient_id:
        told["subject"] = {"type": "Patient", "identifier": {"value": patient_id}}
    date = str(image.StudyDate or "")
    if len(date) == 8:
        told["effectiveDateTime"] = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    return told


def _study(material: Material) -> dict[str, Any]:
    identity = material.findings.identity
    if identity is None:
        return {}
    study = {"system": _DICOM_UID, "value": f"urn:oid:{identity.study_instance_uid}"}
    return {"imagingStudy": [{"type": "ImagingStudy", "identifier": study}]}


def _id(material: Material, name: str) -> str:
    """A UUID from the same hash as the UIDs."""
    return str(uuid.UUID(int=int(material.uid("fhir", name).removeprefix("2.25."))))


def _component(name: Concept, value: dict[str, Any]) -> dict[str, Any]:
    return {"code": _coded(name), **value}


def _quantity(value: float, unit: Concept) -> dict[str, Any]:
    return {"value": value, "unit": unit.meaning, "system": _SYSTEMS["UCUM"], "code": unit.value}


def _coded(*concepts: Concept) -> dict[str, Any]:
    coding = [{"system": _SYSTEMS.get(c.scheme, c.scheme), "code": c.value, "display": c.meaning} for c in concepts]
    return {"coding": coding, "text": concepts[0].meaning}
