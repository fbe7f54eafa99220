"""One table from exception to status."""

from __future__ import annotations

import inspect

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient

from app import disk_faults, multipart, uploads
from app.api import problems, waiting_line
from app.api.problem_kinds import PROBLEMS
from app.api.problems import Problem, problem_kinds, problem_response
from app.imaging import errors
from app.imaging.errors import LungNoduleError
from app.reporting import errors as reporting_errors


def respond(error: Exception, root_path: str = "") -> tuple[int, Problem, dict[str, str]]:
    request = Request({"type": "http", "headers": [], "root_path": root_path, "state": {"request_id": "r1"}})
    response = problem_response(request, error)
    return response.status_code, Problem.model_validate_json(bytes(response.body)), dict(response.headers)


OUR_ERRORS = {
    found
    for module in (errors, reporting_errors, multipart, uploads, problems, waiting_line)
    for _, found in inspect.getmembers(module, inspect.isclass)
    if issubclass(found, LungNoduleError)
}


@pytest.mark.parametrize("error", sorted(OUR_ERRORS - {problems.InvalidFields}, key=lambda cls: cls.__name__))
def test_every_error_of_ours_has_a_row_that_its_default_code_names(error: type[LungNoduleError]) -> None:
    status, problem, _ = respond(error("what to do"))
    assert error in PROBLEMS
    assert problem.code == error.default_code
    assert (problem.status, problem.detail) == (status, "what to do")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UploadTooLarge("m"), 413),
        (errors.UnsupportedFormat("m"), 415),
        (errors.UnreadableScan("m"), 422),
        (errors.SeriesSelectionError("m"), 422),
        (errors.NotChestCt("m"), 422),
        (errors.IrregularSeries("m"), 422),
        (errors.ModelError("m"), 503),
        (multipart.MalformedUpload("m"), 400),
        (uploads.UploadTooSlow("m"), 408),
        (disk_faults.StorageFull("m"), 503),
        (waiting_line.LineFull("m"), 429),
        (MemoryError("m"), 503),
        (ZeroDivisionError("m"), 500),
        (HTTPException(418), 418),
        (RequestValidationError([]), 422),
    ],
)
def test_statuses(error: Exception, status: int) -> None:
    assert respond(error)[0] == status


def test_a_derived_error_falls_to_the_row_of_its_base() -> None:
    class Tilted(errors.IrregularSeries):
        """Not in the table."""

    status, problem, _ = respond(Tilted("m", code="gantry_tilt", values={"tilt_deg": 12.5}))
    assert (status, problem.type, problem.code) == (422, "/problems#irregular_series", "gantry_tilt")
    assert problem.values == {"tilt_deg": 12.5}


@pytest.mark.parametrize("error", [ValueError("Doe^John"), HTTPException(404, "Doe^John")])
def test_text_that_is_not_ours_is_not_passed_on(error: Exception) -> None:
    assert "Doe" not in respond(error)[1].model_dump_json()


def test_values_that_json_cannot_hold_do_not_break_the_answer() -> None:
    _, problem, _ = respond(errors.ScanError("m", values={"ratio": float("inf"), "kind": object}))
    assert problem.values["ratio"] is None


def test_validation_errors_name_the_field_and_not_what_was_sent() -> None:
    fault = {"type": "int_parsing", "loc": ("query", "n"), "msg": "should be an integer", "input": "Doe^John"}
    problem = respond(RequestValidationError([fault]))[1]
    assert problem.errors[0].model_dump() == {"field": "query.n", "message": "should be an integer"}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(waiting_line.LineFull("m", values={"retry_after_s": 7}), "7"), (disk_faults.StorageFull("m"), "30")],
)
def test_what_passes_by_itself_says_when_to_come_back(error: Exception, seconds: str) -> None:
    assert respond(error)[2]["retry-after"] == seconds


def test_type_leads_to_a_section_of_the_page_also_behind_a_prefix(client: TestClient) -> None:
    page = client.get("/problems").text
    for kind in problem_kinds():
        assert f'id="{kind.name}"' in page
    assert respond(ValueError(), root_path="/ct")[1].type == "/ct/problems#internal_error"


def test_the_router_s_own_refusals_are_problems_and_keep_allow(client: TestClient) -> None:
    absent, wrong = client.get("/absent"), client.delete("/v1/models")
    assert (absent.status_code, absent.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"
    assert {answer.headers["content-type"] for answer in (absent, wrong)} == {"application/problem+json"}
