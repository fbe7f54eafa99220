"""The findings as FHIR R4: one DiagnosticReport, and for each nodule an Observation and its RiskAssessments."""

from __future__ import annotations

import json
import uuid
from typing import Any

from app.inference.findings import DISCLAIMER, Nodule
from app.reporting import codes, judgement, wording
from app.reporting.codes import Concept, Quantity
from app.reporting.identifiers import tracking_uid
from app.reporting.material import Material
from app.reporting.risk import BrockRisk

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    "NCIt": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
    codes.PRIVATE: "urn:lungnodule:codes",
    "RADLEX": "http://www.radlex.org",
    "RADELEMENT": "http://radelement.org",
}
_PULMONARY_NODULE = Concept("RDES195", "RADELEMENT", "Pulmonary Nodule")
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_DICOM_UID = "urn:dicom:uid"


def fhir_bundle(material: Material) -> bytes:
    """JSON of the Bundle; the status is preliminary, and the patient is referred to by the ID in the images."""
    observations = [_observation(material, nodule) for nodule in material.findings.nodules]
    risks = [
        _risk(material, nodule, risk)
        for nodule in material.findings.nodules
        if (assessed := material.report.assessed(nodule)) is not None
        for risk in assessed.brock
        if risk.probability is not None or risk.probability_range is not None
    ]
    entries = [_report(material, observations), *observations, *risks]
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
                *judgement.sentences(material.report),
            )
        ),
    }


def _observation(material: Material, nodule: Nodule) -> dict[str, Any]:
    findings = material.findings
    site = codes.finding_site(nodule)
    sides = [codes.LATERALITY[nodule.side]] if nodule.side else []
    change = judgement.change_of(material.report.comparison, nodule.id)
    figures = [*codes.quantities(nodule), *codes.change_quantities(change.growth if change else None)]
    answers = list(codes.qualities(nodule))
    if category := judgement.category_of(material.report.assessed(nodule), "lung_rads_v2022"):
        answers.append((codes.LUNG_RADS, codes.lung_rads(category)))
    components = [_figure(figure) for figure in figures]
    components += [_component((name,), {"valueCodeableConcept": _coded(value)}) for name, value in answers]
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


def _risk(material: Material, nodule: Nodule, risk: BrockRisk) -> dict[str, Any]:
    """One Brock probability, or what the missing inputs leave open; in a range FHIR counts in per cent."""
    if risk.probability is not None:
        told: dict[str, Any] = {"probabilityDecimal": round(risk.probability, 4)}
    else:
        ends = zip(("low", "high"), risk.probability_range or (), strict=False)
        told = {"probabilityRange": {end: _quantity(round(100 * value, 2), codes.PERCENT) for end, value in ends}}
    return {
        "resourceType": "RiskAssessment",
        "id": _id(material, nodule.id, risk.model),
        "status": "preliminary",
        "method": {"text": f"{risk.model}. {risk.source}"},
        # Must be there, also where nobody is known.
        "subject": {"display": "not known"},
        **{name: value for name, value in _shared(material).items() if name == "subject"},
        "basis": [{"reference": f"urn:uuid:{_id(material, nodule.id)}"}],
        "prediction": [{"outcome": {"text": "Lung cancer"}, **told, "rationale": judgement.brock_words(risk)}],
        "note": [{"text": text} for text in (DISCLAIMER, risk.means, *risk.notes)],
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


def _id(material: Material, *names: str) -> str:
    """A UUID from the same hash as the UIDs."""
    return str(uuid.UUID(int=int(material.uid("fhir", *names).removeprefix("2.25."))))


def _figure(figure: Quantity) -> dict[str, Any]:
    names = (figure.name, *([codes.SIZE] if figure.name == codes.DIAMETER else []))
    component = _component(names, {"valueQuantity": _quantity(figure.value, figure.unit)})
    if figure.derivation is not None:
        component["code"]["text"] = f"{figure.derivation.meaning} {figure.name.meaning}"
    return component


def _component(names: tuple[Concept, ...], value: dict[str, Any]) -> dict[str, Any]:
    return {"code": _coded(*names), **value}


def _quantity(value: float, unit: Concept) -> dict[str, Any]:
    return {"value": value, "unit": unit.meaning, "system": _SYSTEMS["UCUM"], "code": unit.value}


def _coded(*concepts: Concept) -> dict[str, Any]:
    coding = [{"system": _SYSTEMS.get(c.scheme, c.scheme), "code": c.value, "display": c.meaning} for c in concepts]
    return {"coding": coding, "text": concepts[0].meaning}
