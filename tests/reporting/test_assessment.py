"""All of it together: nodules that are told, nodules of a scan, and what the headers say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.api.example_result import example_result
from app.api.schemas import AnalysisResult, result_from_findings
from app.imaging.patient_attributes import PatientAttributes, patient_attributes
from app.inference.findings import Location
from app.reporting.assessment import RiskRequest, assess, assess_findings, facts_of, with_headers
from app.reporting.clinical_context import ClinicalContext, InvalidContext, told_from_json
from app.reporting.compared import ComparedFindings, Comparison, NodulePair
from app.reporting.nodule_facts import NoduleFacts
from app.reporting.risk_examples import RISK_EXAMPLES
from app.reporting.size_change import PriorStatus, Size, size_change
from tests.api.standins import make_findings, make_nodule
from tests.reporting.told import SCREENING, context, names

FULL = ClinicalContext(
    age_years=66, sex="female", family_history_lung_cancer=False, emphysema=True, setting="screening",
    screening_exam="baseline",
)  # fmt: skip
MEASURED = replace(
    make_nodule(1, 0.9),
    kind="solid",
    is_spiculated=False,
    location=Location(lobe="upper", is_juxtapleural=False),
    signs=(),
    solid_diameter_mm=None,
    volume_interval_mm3=None,
)


def test_without_a_context_the_answer_lists_what_is_missing() -> None:
    bare = replace(MEASURED, kind=None, is_spiculated=None, location=None)
    assessment = assess_findings(make_findings(bare))
    assert assessment.context is None
    assert assessment.disclaimer == "Research use only. Not for diagnosis."
    (nodule,) = assessment.nodules
    assert [risk.probability for risk in nodule.brock] == [None, None]
    missing = {"age_years", "sex", "family_history_lung_cancer", "emphysema", "kind", "lobe"}
    assert names(nodule.brock[0].inputs_missing) == missing | {"is_spiculated"}
    assert names(nodule.brock[1].inputs_missing) == missing
    assert [answer.category for answer in (assessment.lung_rads, *nodule.guidelines)] == [None] * 4
    lung_rads, fleischner, bts = (names(answer.inputs_missing) for answer in nodule.guidelines)
    assert {"setting", "kind"} <= lung_rads
    assert fleischner == {"setting", "age_years", "known_cancer", "immunosuppressed", "kind"}
    assert bts == {"age_years", "kind"}


def test_with_everything_told_a_scan_gets_its_risk_and_category() -> None:
    assessment = assess_findings(make_findings(MEASURED), FULL)
    (nodule,) = assessment.nodules
    assert all(risk.probability is not None and not risk.inputs_missing for risk in nodule.brock)
    assert (assessment.lung_rads.category, nodule.guidelines[0].category) == ("3", "3")
    assert nodule.guidelines[0].inputs_used["mean_diameter_mm"] == 7.3  # of 8.0 and 6.5
    assert nodule.guidelines[1].cannot_be_assigned == "Does not apply: it is not for screening."
    assert nodule.guidelines[2].category == "surveillance"
    assert assessment.context is not None
    assert assessment.context["age_years"] == 66


def test_the_assessment_can_be_followed_from_the_figures_of_the_answer() -> None:
    found = replace(MEASURED, long_axis_mm=8.049999, short_axis_mm=7.93333333, volume_mm3=191.4399999)
    result = result_from_findings(make_findings(found), FULL)
    (shown,) = result.nodules
    told = NoduleFacts(
        id=shown.id, kind="solid", long_axis_mm=shown.long_axis_mm, short_axis_mm=shown.short_axis_mm,
        volume_mm3=shown.volume_mm3, lobe="upper", is_spiculated=False, is_juxtapleural=False,
    )  # fmt: skip
    assert assess(RiskRequest(context=FULL, nodules=[told])).nodules == result.assessment.nodules


def facts_of_answer(nodule: dict[str, Any]) -> NoduleFacts:
    """What the figures of an answer say of a nodule."""
    location = nodule.get("location") or {}
    facts = {name: nodule[name] for name in NoduleFacts.model_fields if nodule.get(name) is not None}
    facts |= {name: location[name] for name in ("lobe", "is_juxtapleural") if location.get(name) is not None}
    return NoduleFacts.model_validate(facts)


def test_the_example_of_the_description_is_assessed_as_the_service_would() -> None:
    example = example_result()
    told = RiskRequest(nodules=[facts_of_answer(nodule) for nodule in example["nodules"]])
    shown = example["assessment"]
    assert assess(told).model_dump(mode="json") == {**shown, "notes": []}
    assert shown["notes"] == assess_findings(make_findings(MEASURED)).notes


def test_nodules_come_in_the_order_of_the_answer_and_are_counted() -> None:
    nodules = [replace(MEASURED, id=f"nodule-{n}", probability=n / 10) for n in (3, 9, 5)]
    result = result_from_findings(make_findings(*nodules), FULL)
    assert [one.nodule_id for one in result.assessment.nodules] == [one.id for one in result.nodules]
    assert result.assessment.nodule_count == 3
    assert result.assessment.nodules[0].brock[0].inputs_used["nodule_count"] == 3


def test_no_nodule_is_category_1() -> None:
    assert assess_findings(make_findings(), FULL).lung_rads.category == "1"


def test_the_most_suspicious_nodule_is_the_exams() -> None:
    large = replace(MEASURED, id="nodule-2", probability=0.5, long_axis_mm=16.0, short_axis_mm=15.0)
    assert assess_findings(make_findings(MEASURED, large), FULL).lung_rads.category == "4B"


def test_what_was_measured_in_a_scan_is_used() -> None:
    nodule = replace(
        MEASURED, kind="part_solid", solid_diameter_mm=4.25, signs=("fat",), volume_interval_mm3=(150.0, 220.0)
    )
    facts = facts_of(nodule)
    assert (facts.kind, facts.solid_diameter_mm, facts.lobe) == ("part_solid", 4.25, "upper")
    assert (facts.is_smooth, facts.shape, facts.change, facts.lesion) == (None, None, None, "nodule")
    assert assess_findings(make_findings(nodule), FULL).lung_rads.category == "3"


@pytest.mark.parametrize("changes", [{"signs": ("fat",)}, {"kind": "calcified", "signs": ("calcification",)}])
def test_measured_signs_never_make_a_nodule_benign(changes: dict[str, Any]) -> None:
    """One in five measured calcifications is none, and a rim of it is no benign pattern."""
    nodule = replace(MEASURED, **changes)
    assessment = assess_findings(make_findings(nodule), FULL)
    assert facts_of(nodule).has_fat is None
    assert assessment.lung_rads.category == assess_findings(make_findings(MEASURED), FULL).lung_rads.category == "3"
    assert any("nodule-1 is assessed by size" in note for note in assessment.notes)


def compared(status: str, **before: Any) -> ComparedFindings:
    """`MEASURED` after half a year."""
    prior = replace(MEASURED, id="prior-1", **before)
    growth = size_change(
        Size(prior.volume_mm3, prior.diameter_mm), Size(MEASURED.volume_mm3, MEASURED.diameter_mm), 180
    )
    told = PriorStatus(MEASURED.id, status, 180, None, None, None)  # type: ignore[arg-type]
    comparison = Comparison(
        days=180, quality=None, failure=None, prior_nodules=(prior,),  # type: ignore[arg-type]
        pairs=() if status in ("new", "unknown") else (NodulePair(MEASURED.id, "prior-1", 1.0, 9.0, growth),),
        only_current=(), only_prior=(), statuses=(told,), notices=(), missing=(),
    )  # fmt: skip
    plain = make_findings(MEASURED)
    return ComparedFindings(**{f.name: getattr(plain, f.name) for f in fields(plain)}, comparison=comparison)


@pytest.mark.parametrize(
    ("status", "rule"),
    [("growing", "lr-4a-solid-growing"), ("slowly_growing", "lr-4b-slow-growth"), ("new", "lr-4a-solid-new")],
)
def test_what_a_comparison_found_goes_into_lung_rads(status: str, rule: str) -> None:
    (nodule,) = assess_findings(compared(status), FULL).nodules
    answer = nodule.guidelines[0]
    assert answer.rule is not None
    assert answer.rule.id == rule


def test_a_comparison_gives_the_doubling_time_and_never_invents_the_earlier_category() -> None:
    (nodule,) = assess_findings(compared("growing", volume_mm3=MEASURED.volume_mm3 / 2), FULL).nodules
    assert nodule.growth is not None
    assert nodule.growth.doubling_time_days == pytest.approx(180, abs=0.5)
    (stable,) = assess_findings(compared("stable"), FULL).nodules
    assert stable.guidelines[0].category is None
    assert "earlier" in [missing.name for missing in stable.guidelines[0].inputs_missing]


def test_where_the_comparison_could_not_tell_nothing_is_assumed() -> None:
    assert facts_of(MEASURED, compared("unknown").comparison).change is None
    assert facts_of(MEASURED, compared("unknown").comparison).earlier is None


def test_several_solid_nodules_are_multiple_for_fleischner_and_a_subsolid_one_is_not() -> None:
    incidental = {"setting": "incidental", "age_years": 60, "known_cancer": False, "immunosuppressed": False}
    kinds = ["solid", "solid", "ground_glass"]
    nodules = [{"id": f"n{n}", "kind": k, "long_axis_mm": 7, "short_axis_mm": 7} for n, k in enumerate(kinds)]
    request: dict[str, Any] = {"context": incidental, "nodules": nodules}
    answers = [one.guidelines[1] for one in assess(RiskRequest.model_validate(request)).nodules]
    assert [a.category for a in answers] == [
        "solid_multiple_6_to_8_mm", "solid_multiple_6_to_8_mm", "ground_glass_single_6_mm_or_more",
    ]  # fmt: skip
    more = assess(RiskRequest.model_validate({**request, "nodule_count": 4}))
    assert more.nodules[2].guidelines[1].category == "subsolid_multiple_6_mm_or_more"
    assert "1 of 4 nodules are not described" in more.notes[0]


@pytest.mark.parametrize("name", RISK_EXAMPLES)
def test_the_examples_are_requests(name: str) -> None:
    assessment = assess(RiskRequest.model_validate(RISK_EXAMPLES[name][1]))
    assert assessment.nodules
    assert any(answer.category for one in assessment.nodules for answer in one.guidelines)


def test_a_grown_nodule_has_its_doubling_time_with_an_interval() -> None:
    assessment = assess(RiskRequest.model_validate(RISK_EXAMPLES["grown"][1]))
    growth = assessment.nodules[0].growth
    assert growth is not None
    low, high = growth.doubling_time_interval_days or (None, None)
    assert low is not None
    assert high is not None
    assert low < (growth.doubling_time_days or 0) < high
    assert assessment.lung_rads.category == "4B"


@pytest.mark.parametrize(
    "request_",
    [
        {"nodules": [{}, {}]},
        {"nodules": [{}], "nodule_count": 0},
        {"nodules": [], "context": {"from_headers": True}},
        {"nodules": [{"short_axis_mm": 8, "long_axis_mm": 7}]},
        {"nodules": [{"volume_mm3": 10, "volume_interval_mm3": [11, 12]}]},
        {"nodules": [{"volume_interval_mm3": [12, 11]}]},
        {"nodules": [{"earlier": {"interval_days": 9, "volume_mm3": 13, "volume_interval_mm3": [11, 12]}}]},
        {"nodules": [{"change": "new", "earlier": {"interval_days": 90}}]},
        {"nodules": [{"long_axis_mm": 0}]},
        {"nodules": [{"long_axis_mm": float("nan")}]},
        {"nodules": [{"patient": "Doe"}]},
        {"nodules": [], "context": {"age_years": -1}},
        {"nodules": [], "context": {"emphysema": "yes"}},
        {"nodules": [], "context": {"smoking": {"status": "never", "pack_years": 3}}},
        {"nodules": [], "context": {"smoking": {"status": "current", "quit_years": 3}}},
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RiskRequest.model_validate(request_)


def test_a_file_that_does_not_fit_is_refused_without_quoting_it() -> None:
    with pytest.raises(InvalidContext) as refused:
        told_from_json(b'{"age_years": "Doe^John", "Doe^Jane": 1, "sex": "Doe"}', ClinicalContext)
    assert "age_years" in refused.value.message
    assert "Doe" not in refused.value.message
    with pytest.raises(InvalidContext, match="not JSON"):
        told_from_json(b"Doe", ClinicalContext)


HEADERS = PatientAttributes(71.0, "male")


def test_headers_are_used_only_where_they_are_asked_for() -> None:
    findings = make_findings(MEASURED, patient=HEADERS)
    for told in (None, SCREENING):
        result = result_from_findings(findings, told)
        assert result.assessment.inputs_from_headers == []
        assert "71" not in json.dumps(result.assessment.context or {})
        assert "age_years" in names(result.assessment.nodules[0].brock[0].inputs_missing)
    asked = result_from_findings(findings, context(SCREENING, from_headers=True)).assessment
    assert asked.inputs_from_headers == ["age_years", "sex"]
    assert asked.context is not None
    assert (asked.context["age_years"], asked.context["sex"]) == (71.0, "male")
    assert asked.nodules[0].brock[0].inputs_used["age_years"] == 71.0


def test_what_is_told_wins_over_the_headers() -> None:
    told = ClinicalContext(from_headers=True, age_years=50)
    assert with_headers(told, HEADERS) == (ClinicalContext(from_headers=True, age_years=50, sex="male"), ["sex"])
    assert with_headers(told, None) == (told, [])
    assert with_headers(told, PatientAttributes()) == (told, [])


@pytest.mark.parametrize(
    ("age", "sex", "expected"),
    [
        ("065Y", "M", (65.0, "male")), ("018M", "F", (1.5, "female")), ("026W", "O", (0.5, None)),
        ("073D", None, (0.2, None)), ("65Y", "", (None, None)), ("150Y", "X", (None, None)), (None, None, (None, None)),
        ("065Y ", "m", (None, None)),
    ],
)  # fmt: skip
def test_age_and_sex_as_dicom_writes_them(age: str | None, sex: str | None, expected: tuple[Any, Any]) -> None:
    found = patient_attributes(age, sex)
    assert (found.age_years, found.sex) == expected
    assert "65" not in repr(found)


@given(st.builds(dict, age_years=st.floats(0, 120) | st.none(), emphysema=st.booleans() | st.none()))
def test_the_same_context_has_the_same_bytes(told: dict[str, Any]) -> None:
    one = ClinicalContext.model_validate(told)
    other = ClinicalContext.model_validate_json(json.dumps(dict(reversed(told.items())), indent=3))
    assert one.canonical_json() == other.canonical_json()
    assert ClinicalContext.model_validate_json(one.canonical_json()) == one


def test_the_answer_reads_back() -> None:
    result = result_from_findings(make_findings(MEASURED), FULL)
    assert AnalysisResult.model_validate_json(result.model_dump_json()) == result


def test_risk_and_guidelines_need_no_network() -> None:
    program = (
        "import sys, app.reporting.assessment, app.reporting.risk, app.reporting.guidelines.lung_rads; "
        "print([m for m in ('onnxruntime', 'fastapi', 'SimpleITK', 'torch', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
