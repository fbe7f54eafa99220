"""POST /v1/risk: what is told comes back assessed, and what does not fit is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.reporting.assessment import Assessment
from app.reporting.risk_examples import RISK_EXAMPLES
from app.settings import Settings
from tests.api.standins import Recorder

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("name", RISK_EXAMPLES)
def test_each_example_of_the_description_is_answered(client: TestClient, recorder: Recorder, name: str) -> None:
    answer = client.post("/v1/risk", json=RISK_EXAMPLES[name][1])
    assert answer.status_code == 200, answer.text
    assessment = Assessment.model_validate(answer.json())
    assert assessment.disclaimer == "Research use only. Not for diagnosis."
    assert [one.nodule_id for one in assessment.nodules]
    assert recorder.model is None, "nothing may be analysed"


def test_known_figures(client: TestClient) -> None:
    told = {
        "context": {"age_years": 65, "sex": "female", "family_history_lung_cancer": True, "emphysema": True},
        "nodules": [{"long_axis_mm": 12, "kind": "part_solid", "lobe": "upper", "is_spiculated": True}],
    }
    (nodule,) = client.post("/v1/risk", json=told).json()["nodules"]
    assert [round(risk["probability"], 5) for risk in nodule["brock"]] == [0.53581, 0.39671]


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"nodules": [{"long_axis_mm": -1}]}, "body.nodules.0.long_axis_mm"),
        ({"nodules": [{"kind": "hard"}]}, "body.nodules.0.kind"),
        ({"context": {}}, "body.nodules"),
        ({"nodules": [{}] * 201}, "body.nodules"),
        ({"nodules": [], "context": {"sex": "Doe"}}, "body.context.sex"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(client: TestClient, told: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/risk", json=told)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert field in [fault["field"] for fault in problem["errors"]]
    assert "Doe" not in answer.text


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_body_over_the_limit_is_refused(client: TestClient, content_type: str) -> None:
    answer = client.post("/v1/risk", content=b" " * (2 << 20), headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    told = json.dumps(RISK_EXAMPLES["grown"][1]).encode()
    padded = told + b" " * ((1 << 20) - len(told))
    accepted, refused = (client.post("/v1/risk", content=c, headers=JSON) for c in (padded, padded + b" "))
    assert (accepted.status_code, refused.status_code) == (200, 413)


def test_the_description_has_the_examples_and_the_units() -> None:
    document = create_app(Settings()).openapi()
    body = document["paths"]["/v1/risk"]["post"]["requestBody"]["content"]["application/json"]
    assert {name: shown["value"] for name, shown in body["examples"].items()} == {
        name: told for name, (_, told) in RISK_EXAMPLES.items()
    }
    facts = document["components"]["schemas"]["NoduleFacts"]["properties"]
    assert "mm3" in facts["volume_mm3"]["description"]
