"""The OpenAPI description: what FastAPI derives from the routes, and what it cannot know."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.example_result import example_result
from app.api.problems import Problem, problem_responses

_DESCRIPTION = """\
Finds lung nodules in chest CT. **Research use only. Not for diagnosis.**

Send one CT series to `POST /v1/predict` and wait for its nodules:

    curl -F files=@series.zip http://127.0.0.1:8000/v1/predict

Coordinates are in patient millimetres: `lps` is DICOM's frame, `ras` is NIfTI's. Indices are (z, y, x) and count voxel
centres from 0. Errors are RFC 9457 problem documents; [/problems](problems) explains each kind.
"""

_TAGS = [
    {"name": "analysis", "description": "A chest CT in, its nodules out."},
    {
        "name": "jobs",
        "description": "The same in its turn: what was acknowledged is answered.",
    },
    {"name": "workspace", "description": "What a reader looks at: slices, outlines, meshes, a review."},
    {"name": "pacs", "description": "Series come in as DICOM, results go back."},
    {"name": "models", "description": "What answers, what it reads, and its limits."},
    {"name": "operations", "description": "For probes and monitoring."},
]


def describe(app: FastAPI, root_path: str) -> dict[str, Any]:
    """The OpenAPI document of the app; every operation may also answer 500 with a problem."""
    document = get_openapi(
        title="lungnodule",
        version=version("lungnodule"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=_TAGS,
        routes=app.routes,
        servers=[{"url": root_path}] if root_path else None,
    )
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _, problem = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    schemas.update(problem["$defs"])
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"] = _responses(operation["responses"])
    # Here, because FastAPI would drop the fields that are null.
    answer = document["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    answer["example"] = example_result()
    return document


def _responses(responses: dict[str, Any]) -> dict[str, Any]:
    """Without FastAPI's own 422, which no route here gives: every parameter in a path is a plain string."""
    kept = {
        status: response
        for status, response in responses.items()
        if status != "422" or "application/json" not in response.get("content", {})
    }
    internal_error = {str(status): response for status, response in problem_responses(500).items()}
    return dict(sorted((kept | internal_error).items()))
