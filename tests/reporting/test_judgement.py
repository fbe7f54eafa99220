"""Risk, guidelines and the prior in every form that a person or a program reads."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle as FhirBundle

from app.api.schemas import result_from_findings
from app.cli.result_files import write_results
from app.imaging.acceptance import Notice
from app.reporting import codes
from app.reporting.assessment import assess_findings
from app.reporting.bundle import Bundle, encoded, pack, unpack
from app.reporting.clinical_context import ClinicalContext
from app.reporting.judgement import comparison_words, sentences
from app.reporting.material import Report
from app.reporting.results import KINDS, make_result
from tests.reporting.test_results import text_of
from tests.reporting.worlds import MADE_AT, Scan

SCREENED = ClinicalContext.model_validate(
    {
        "age_years": 66, "sex": "female", "family_history_lung_cancer": False, "emphysema": True,
        "setting": "screening", "screening_exam": "baseline",
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def stored(compared: Scan) -> Report:
    """A report as it comes back from the store."""
    document = result_from_findings(compared.findings, SCREENED).model_dump_json().encode()
    return unpack(pack(Bundle(document, compared.findings, MADE_AT))).report


def body(kind, report, scan):
    return make_result(kind, report, scan.originals).body


def items(dataset):
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


def test_assessment_and_comparison_come_back_from_the_store(stored, compared):
    expected = assess_findings(compared.findings, SCREENED)
    assert json.loads(stored.assessment.model_dump_json()) == json.loads(expected.model_dump_json())
    assert encoded(stored.comparison) == encoded(compared.findings.comparison)
    assert stored.comparison.pairs == compared.findings.comparison.pairs


@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_report_is_the_same_bytes_in_every_form(kind, stored, compared):
    assert body(kind, stored, compared) == body(kind, stored, compared)


def test_a_document_without_assessment_is_rendered_without_one(classic):
    report = unpack(pack(Bundle(b"{}", classic.findings, MADE_AT))).report
    assert (report.assessment, report.comparison) == (None, None)
    assert "Risk and guidelines" not in text_of(body("pdf", report, classic))
    row = next(csv.DictReader(io.StringIO(body("csv", report, classic).decode())))
    assert {row[name] for name in ("lung_rads", "brock_2a", "prior_status", "doubling_time_days")} == {""}


def test_csv_says_category_risk_and_change(stored, compared):
    first, second = csv.DictReader(io.StringIO(body("csv", stored, compared).decode()))
    assert list(first)[-9:-7] == ["disclaimer", "lung_rads"]
    brock = {risk.model: risk.probability for risk in stored.assessment.nodules[0].brock}
    assert (first["lung_rads"], first["fleischner"], first["bts"]) == ("4X", "", "growing")
    assert float(first["brock_2b"]) == pytest.approx(brock["brock_full_2b"], abs=6e-5)
    assert float(first["brock_2a"]) == pytest.approx(brock["brock_full_2a"], abs=6e-5)
    assert (first["prior_status"], first["volume_change_percent"], first["doubling_time_days"]) == (
        "matched", "100.0", "180.0",
    )  # fmt: skip
    assert (second["prior_status"], second["volume_change_percent"], second["doubling_time_days"]) == ("new", "", "")


def test_pdf_says_all_that_was_measured_and_judged(stored, compared):
    text = " ".join(text_of(body("pdf", stored, compared)).split())
    for words in (
        "part-solid", "spiculated", "calcification", "123 mg", "(-310 to 88)", "pleura", "80 % sure",
        "Compared with a prior of 180 days before", "doubling time 180 days", "nodule-2: new",
        "nodule-2 of the prior: resolved", "Exam, Lung-RADS v2022: 4X", "Brock 2b (with spiculation): ",
        "Rule lr-most-suspicious-nodule", "Probability that a nodule like this turned out to be lung cancer",
        "Nodules below the operating point are neither assessed nor counted.", "calls most part-solid ones solid",
    ):  # fmt: skip
        assert words in text, words


def test_without_context_pdf_says_what_is_missing(classic):
    text = " ".join(text_of(body("pdf", classic.report, classic)).split())
    assert "Lung-RADS v2022: cannot be assigned" in text
    assert "family_history_lung_cancer" in text
    assert "Compared with" not in text
    assert ".." not in text


def test_one_nodule_with_context_and_prior_is_one_page(stored, compared):
    (first, *_), comparison = compared.findings.nodules, compared.findings.comparison
    alone = dataclasses.replace(
        compared.findings, nodules=(first,),
        comparison=dataclasses.replace(comparison, only_current=(), statuses=comparison.statuses[:1]),
    )  # fmt: skip
    report = Report(alone, MADE_AT, assess_findings(alone, SCREENED))
    assert "Page 1 of 1" in text_of(body("pdf", report, compared))


def test_sr_has_figures_qualities_and_sentences(stored, compared):
    found = list(items(pydicom.dcmread(io.BytesIO(body("sr", stored, compared)))))
    first = compared.findings.nodules[0]
    figures = {
        item.ConceptNameCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in found
        if item.ValueType == "NUM"
    }
    assert figures["SOLIDDIAMETER"] == pytest.approx(first.solid_diameter_mm, abs=0.06)
    assert figures["MASS"] == 123.4
    assert figures["VOLUMECHANGE"] == pytest.approx(100)
    assert figures["DOUBLINGTIME"] == 180
    assert figures["VOLUMELOW"] < figures[codes.VOLUME.value] < figures["VOLUMEHIGH"]
    said = {
        (item.ConceptNameCodeSequence[0].CodeValue, item.ConceptCodeSequence[0].CodeValue)
        for item in found
        if item.ValueType == "CODE"
    }
    assert {("RDE1301", "RID50152"), ("C28749", "52101004"), ("C3672", "52101004")} <= said
    assert ("LUNGRADS2022", "LUNGRADS-4X") in said
    texts = {item.TextValue for item in found if item.ValueType == "TEXT"}
    assert set(sentences(stored)) <= texts


def test_fhir_has_components_conclusion_and_risk(stored, compared):
    raw = body("fhir", stored, compared)
    FhirBundle.model_validate_json(raw)
    resources = [entry["resource"] for entry in json.loads(raw)["entry"]]
    assert "Exam, Lung-RADS v2022: 4X" in resources[0]["conclusion"]
    observation = resources[1]
    coded = {coding["code"] for part in observation["component"] for coding in part["code"]["coding"]}
    assert {"RDE1301", "RDE1302", "C28749", "LUNGRADS2022", "DOUBLINGTIME", "MASS"} <= coded
    risks = [resource for resource in resources if resource["resourceType"] == "RiskAssessment"]
    assert len(risks) == 2 * len(compared.findings.nodules)
    assert risks[0]["basis"][0]["reference"] == f"urn:uuid:{observation['id']}"
    told = stored.assessment.nodules[0].brock[0]
    assert risks[0]["prediction"][0]["probabilityDecimal"] == pytest.approx(told.probability, abs=6e-5)
    assert told.means in {note["text"] for note in risks[0]["note"]}


def test_fhir_gives_a_range_where_inputs_are_missing_and_nothing_where_there_is_none(compared):
    partly = ClinicalContext.model_validate({"age_years": 66, "sex": "female"})
    for context, expected in ((partly, 2 * len(compared.findings.nodules)), (None, 0)):
        report = Report(compared.findings, MADE_AT, assess_findings(compared.findings, context))
        raw = body("fhir", report, compared)
        FhirBundle.model_validate_json(raw)
        resources = [entry["resource"] for entry in json.loads(raw)["entry"]]
        risks = [resource for resource in resources if resource["resourceType"] == "RiskAssessment"]
        assert len(risks) == expected
        for risk in risks:
            ends = risk["prediction"][0]["probabilityRange"]
            assert 0 <= ends["low"]["value"] < ends["high"]["value"] <= 100


def test_a_failed_comparison_says_why_and_nothing_else(compared):
    failed = dataclasses.replace(compared.findings.comparison, failure=Notice("few_landmarks", "Too few landmarks."))
    assert comparison_words(failed, compared.findings.nodules) == ["Nothing could be compared: Too few landmarks."]


def test_the_files_of_the_command_have_the_context_of_the_document(compared, tmp_path):
    document = result_from_findings(compared.findings, SCREENED).model_dump_json()
    write_results(tmp_path, ["csv"], document, compared.originals, leave_out=False)
    first, *_ = csv.DictReader(io.StringIO((tmp_path / "nodules.csv").read_text(encoding="utf-8")))
    assert (first["lung_rads"], first["prior_status"]) == ("4X", "matched")
