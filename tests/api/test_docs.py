"""The description is complete, true, and asks nothing of the internet."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api.docs import STATIC
from app.api.example_result import example_result
from app.api.schemas import AnalysisResult
from app.imaging.volume import Grid
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Serve


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


# The manifest describes itself where it is written.
MANIFEST = {"CharacteriserEntry", "CropSpec", "DetectorEntry", "Malignancy", "Metric", "ModelManifest", "Parity"}
MANIFEST |= {"NetworkVariant", "OperatingPointEntry", "PreprocessingSpec", "Provenance", "VariantFigure"}
MANIFEST |= {"AxialSliceEntry", "BlockInput", "CropBlockEntry", "Head", "SliceInput"}
MANIFEST |= {"AnchorLevel", "HeatMapEntry", "PublishedFigure", "RetinaNetEntry", "WindowRule"}


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/problems"])
def test_pages_load_only_what_the_service_serves(client: TestClient, page: str) -> None:
    text = client.get(page).text
    assert "//" not in re.sub("data:,", "", text)
    assets = re.findall(r'(?:src|href)="([^"#]+)"', text)
    for asset in assets:
        assert asset == "data:," or client.get(f"/{asset}").status_code == 200


def test_the_policy_of_the_pages_names_no_other_host(client: TestClient) -> None:
    policy = client.get("/docs").headers["content-security-policy"]
    sources = {word for directive in policy.split(";") for word in directive.split()[1:]}
    assert sources <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}
    assert re.search(r"script-src 'self'(;|$)", policy)


def test_vendored_files_are_the_published_ones() -> None:
    listed = dict(line.split()[::-1] for line in (STATIC / "SHA256SUMS").read_text().splitlines())
    ours = {"README.md", "SHA256SUMS", "page.css", "redoc-start.js", "swagger-ui-start.js", "example_result.json"}
    assert listed.keys() == {path.name for path in STATIC.iterdir()} - ours
    for name, sha256 in listed.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == sha256


def test_static_files_may_be_cached_and_do_not_escape_their_folder(client: TestClient) -> None:
    assert client.get("/static/page.css").headers["cache-control"] == "public, max-age=86400"
    assert client.get("/static/..%2f..%2fmain.py").status_code == 404


def test_every_field_of_the_answers_is_described(document: dict[str, Any]) -> None:
    missing = [
        f"{schema}.{name}"
        for schema, body in document["components"]["schemas"].items()
        for name, field in body.get("properties", {}).items()
        if schema not in MANIFEST and "description" not in field
    ]
    assert missing == []


@pytest.mark.parametrize("suffix", ["_mm", "_mm3", "_s", "_hu", "_px", "_bytes"])
def test_a_field_with_a_unit_in_its_name_has_it_in_its_description(document: dict[str, Any], suffix: str) -> None:
    words = {"_s": "seconds", "_hu": "HU", "_px": "pixels", "_bytes": "bytes"}
    word = words.get(suffix, suffix[1:])
    found = {
        name: field.get("description", "")
        for schema, body in document["components"]["schemas"].items()
        for name, field in body.get("properties", {}).items()
        if schema not in MANIFEST and name.endswith(suffix) and not name.endswith("_per_s")
    }
    assert found
    wrong = {name: text for name, text in found.items() if word.lower() not in text.lower()}
    assert wrong == {}


def test_every_error_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            failures = {s: r for s, r in operation["responses"].items() if s >= "400"}
            assert {"400", "401", "403", "429", "500", "503"} <= failures.keys(), path
            for status, response in failures.items():
                # STOW-RS says by instance what it has not stored.
                is_stow = path.startswith("/dicom-web/") and status == "409"
                expected = (
                    ["application/dicom+json", "application/dicom+xml"] if is_stow else ["application/problem+json"]
                )
                assert list(response["content"]) == expected, path
    predict = document["paths"]["/v1/predict"]["post"]["responses"]
    assert predict.keys() == {"200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "501", "503"}


def test_operations_have_names_that_a_generated_client_can_use(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert sorted(names) == [
        "activate_model",
        "assess_nodules",
        "cancel_batch",
        "cancel_job",
        "capabilities",
        "create_batch",
        "create_job",
        "cut_slab",
        "draw_explanation",
        "draw_thumbnail",
        "erase_job",
        "explain_nodule",
        "follow_job",
        "healthz",
        "list_audit",
        "list_jobs",
        "list_model_reports",
        "list_models",
        "metrics",
        "predict",
        "put_review",
        "read_hu",
        "readyz",
        "retry_job",
        "send_results",
        "show_batch",
        "show_candidates",
        "show_dashboard",
        "show_document",
        "show_job",
        "show_model",
        "show_model_card",
        "show_model_froc",
        "show_model_report",
        "show_outlines",
        "show_prior",
        "show_result",
        "show_returns",
        "show_review",
        "show_reviewed_report",
        "show_scene",
        "show_scene_usdz",
        "show_session",
        "show_volume",
        "sign_in",
        "sign_out",
        "store_instances",
        "store_study_instances",
    ]


def test_the_form_is_described(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["required"] == ["files"]
    assert body["properties"].keys() == {
        "files", "series_uid", "operating_point", "model", "allow_repairs", "context",
    }  # fmt: skip
    assert body["properties"]["allow_repairs"]["items"]["enum"] == ["duplicate_slices", "missing_slices", ""]
    assert "null" not in str(body)


def test_the_example_is_an_answer_whose_coordinates_agree(document: dict[str, Any]) -> None:
    shown = document["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    result = AnalysisResult.model_validate(shown)
    assert result.model_dump(mode="json") == example_result(), "a field is missing from the example"
    affine = np.array(result.series.affine_index_zyx_to_lps_mm)
    grid = Grid(result.series.shape_zyx, affine)
    assert np.allclose(grid.spacing_zyx_mm, result.series.spacing_zyx_mm)
    for nodule in result.nodules:
        box = nodule.bounding_box
        assert np.allclose(grid.to_patient(box.index_zyx.min), box.lps_mm.min, atol=0.01)
        assert np.allclose(grid.to_patient(box.index_zyx.max), box.lps_mm.max, atol=0.01)
        x, y, z = nodule.center_lps_mm
        assert nodule.center_ras_mm == (-x, -y, z)
        assert (np.array(box.lps_mm.min) < (x, y, z)).all()
        assert (np.array(box.lps_mm.max) > (x, y, z)).all()


def test_paths_in_the_description_carry_the_prefix(serve: Serve) -> None:
    client = serve(root_path="/ct")
    assert client.get("/ct/openapi.json").json()["servers"] == [{"url": "/ct"}]
    assert client.get("/ct/", follow_redirects=False).headers["location"] == "/ct/docs"
    assert client.get("/ct/static/page.css").status_code == 200
    assert client.get("/ct/absent").json()["type"] == "/ct/problems#not_found"
