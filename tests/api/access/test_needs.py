"""One table says what each route needs of a caller, and each route has its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter

from app.api.access.needs import NEEDS, Need, need_of
from app.api.access.places import Places, places_of
from app.main import create_app
from app.settings import Settings
from tests.api.access.callers import door


@pytest.fixture(scope="module")
def places() -> Places:
    return places_of(create_app(Settings()).routes)


def test_every_route_has_a_line(places: Places) -> None:
    methods = {(method, place.path) for _, place in places.patterns for method in (place.methods or {"GET"}) - {"HEAD"}}
    missing = sorted(methods - NEEDS.keys())
    assert not missing, f"write what they need into NEEDS of app/api/access/needs.py: {missing}"


def test_no_line_is_left_over(places: Places) -> None:
    methods = {(method, place.path) for _, place in places.patterns for method in place.methods or {"GET"}}
    assert NEEDS.keys() <= methods


def test_every_operation_of_the_description_is_found_where_it_is(places: Places) -> None:
    """Matching agrees with the router: a request to each path of the document is judged by that path's line."""
    app = create_app(Settings())
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            made = path.replace("{", "x").replace("}", "x")
            place, _ = places.find({"type": "http", "path": made, "method": method.upper(), "root_path": ""})
            assert place.path == path


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/v1/later", Need.READ),
        ("HEAD", "/v1/jobs", Need.READ),
        ("POST", "/v1/jobs/{job_id}/later", Need.SUBMIT),
        ("DELETE", "/v1/batches/{batch_id}", Need.SUBMIT),
        ("PUT", "/dicom-web/later", Need.SUBMIT),
        ("POST", "/v1/models/{name}/later", Need.OPERATE),
        ("PATCH", "/later", Need.OPERATE),
        ("GET", None, Need.KNOWN),
    ],
)
def test_a_route_without_a_line_needs_rather_too_much(method: str, path: str | None, need: Need) -> None:
    assert need_of(method, path) is need


def test_a_route_that_somebody_adds_is_guarded(tmp_path: Path) -> None:
    router = APIRouter()

    @router.get("/v1/later/{job_id}")
    async def later(job_id: str) -> str:
        return job_id

    @router.post("/v1/elsewhere")
    async def elsewhere() -> str:
        return "done"

    with door(tmp_path) as here:
        here.client.app.include_router(router)  # type: ignore[attr-defined]
        job = here.submit(here.key("anna", tenant="a"))
        path = f"/v1/later/{job['id']}"
        assert here.client.get(path).status_code == 401
        assert here.client.get(path, headers=here.key("anna")).status_code == 200
        assert here.client.get(path, headers=here.key("bert", tenant="b")).json()["code"] == "unknown_job"
        assert here.client.post("/v1/elsewhere", headers=here.key("anna")).status_code == 403
        assert here.client.post("/v1/elsewhere", headers=here.key("chief", ["operate"])).status_code == 200


@pytest.mark.parametrize("root_path", ["", "/lungnodule"])
def test_each_role_opens_what_the_table_says(tmp_path: Path, root_path: str) -> None:
    with door(tmp_path, root_path=root_path, pacs=True) as here:
        for (method, template), need in NEEDS.items():
            path = template.replace("{path:path}", "redoc-start.js").replace("{form}", "json")
            path = path.replace("{", "x").replace("}", "x")
            anybody = here.client.request(method, path)
            assert (anybody.status_code == 401) is (need not in (Need.PROBE, Need.PAGE, Need.OPEN)) or (
                template == "/v1/session"
            ), path
            for role in ("submit", "read", "operate"):
                answer = here.client.request(method, path, headers=here.key(role, [role]))
                is_allowed = role in (need.value, "operate") or need in (Need.PROBE, Need.PAGE, Need.OPEN)
                assert (answer.status_code == 403) is not is_allowed, (role, method, path)
                if answer.status_code == 403:
                    assert answer.json()["code"] == "role_missing"
