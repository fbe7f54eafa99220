"""Which models there are, which one is in force, and how that is changed."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api.errors import NotFound
from app.api.job_desk import DeskDependency
from app.api.model_choice import ActivationRefused, Models, called
from app.api.problems import problem_responses
from app.api.service import ServiceDependency
from app.imaging.errors import ModelError
from app.inference.findings import ModelIdentity
from app.inference.manifest import ModelManifest
from app.inference.model_registry import KnownModel
from app.inference.precision import precisions_of
from app.jobs.rows import Who

router = APIRouter(tags=["models"])


class ModelSummary(BaseModel):
    """One model of the store."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Semantic version.")
    sha256: str = Field(description="sha256 of the manifest, which holds the sha256 of every network.")
    is_default: bool = Field(description="Whether it answers when a request names no model.")
    state: Literal["active", "loaded", "available"] = Field(
        description="`active`: it answers when a request names no model; `loaded`: it is in this process's memory; "
        "`available`: it is loaded when a request names it."
    )
    is_loaded: bool = Field(description="Whether it is in this process's memory.")
    intended_use: str = Field(description="What it is for, and what not.")
    execution_provider: str | None = Field(
        description="What runs the detector: an execution provider of ONNX Runtime, or OpenVINO; null while the model "
        "is not in memory."
    )
    precision: dict[str, str] = Field(
        description="By network: fp32, or the name of its variant that runs; empty while the model is not in memory."
    )
    precisions: list[str] = Field(description="Those that LUNGNODULE_PRECISION can choose; figures in the manifest.")
    operating_points: list[str] = Field(description="Names that the form field operating_point takes.")
    default_operating_point: str = Field(description="The one in force when a request names none.")


class InvalidFolder(BaseModel):
    """A folder of the store that cannot be used."""

    name: str = Field(description="Name of the model, by its folder.")
    version: str = Field(description="Version, by its folder.")
    state: Literal["invalid"] = Field(description="Always `invalid`.")
    code: str = Field(description="Stable identifier of the fault.")
    reason: str = Field(description="What is wrong; names the file.")


class ModelList(BaseModel):
    """Every model of the store."""

    models: list[ModelSummary] = Field(
        description="Those that a request can name. The first is the default, then come those of the settings."
    )
    invalid: list[InvalidFolder] = Field(
        description="Folders that cannot be used: their manifest is not valid, or they could not be loaded when asked."
    )


class ModelDetails(ModelSummary):
    """One model with its whole manifest."""

    manifest: ModelManifest = Field(
        description="Preprocessing, networks, operating points, measured figures and provenance."
    )


class Activated(BaseModel):
    """What is in force now."""

    model: ModelSummary = Field(description="The model that was activated.")
    previous: str = Field(description="The one before, name:version: activate it to go back.")


@router.get("/v1/models", summary="Models of the store", responses=problem_responses(503))
async def list_models(service: ServiceDependency) -> ModelList:
    """Every model that can be named in a request, the default first; and folders that cannot be used."""
    return await asyncio.to_thread(_listed, service.models)


@router.get("/v1/models/{name}/{version}", summary="One model and its manifest", responses=problem_responses(404, 503))
async def show_model(name: str, version: str, service: ServiceDependency) -> ModelDetails:
    """The manifest of one model: how it was trained, what was measured, what it must not be used for."""
    return await asyncio.to_thread(_shown, service.models, name, version)


@router.post(
    "/v1/models/{name}/{version}/activate",
    summary="Put a model in force",
    responses=problem_responses(404, 409, 503),
)
async def activate_model(
    name: str, version: str, request: Request, service: ServiceDependency, desk: DeskDependency
) -> Activated:
    """Verify, load and warm up a model of the store; only then does it answer where a request names none.

    It holds for every process of this database and survives their restart. What runs or waits keeps the model it was
    given. Whatever goes wrong, the model before stays in force. To go back, activate that one.
    """
    service.refuse_when_draining()
    return await desk.run(_activated, service.models, name, version, desk.who(request))


def _listed(models: Models) -> ModelList:
    usable, invalid = models.registry.listed()
    active = models.active()
    first = [active, *(model.identity for model in models.named)]
    usable.sort(key=lambda model: first.index(model.identity) if model.identity in first else len(first))
    return ModelList(
        models=[_summary(models, model, active) for model in usable],
        invalid=[
            InvalidFolder(
                name=one.folder.name,
                version=one.folder.version,
                state="invalid",
                code=one.error.code,
                reason=one.error.message,
            )
            for one in invalid
        ],
    )


def _shown(models: Models, name: str, version: str) -> ModelDetails:
    model = found_model(models, name, version)
    return ModelDetails(**_summary(models, model, models.active()).model_dump(), manifest=model.manifest)


def _activated(models: Models, name: str, version: str, who: Who) -> Activated:
    try:
        model = found_model(models, name, version)
        before = models.activate(model, who)
    except ModelError as error:
        raise ActivationRefused(error.message, code=error.code, values=error.values) from error
    return Activated(model=_summary(models, model, model.identity), previous=called([before])[0])


def found_model(models: Models, name: str, version: str) -> KnownModel:
    """A model of the store; blocks.

    Raises
    ------
    NotFound
        ``unknown_model``, with the names there are.
    ModelError
        Its folder cannot be used.
    """
    try:
        return models.registry.find(name, version)
    except ModelError as error:
        if error.code != "model_unknown":
            raise
        available = [reference.replace(":", "/") for reference in error.values["available"]]
        raise NotFound(
            f"No such model is in the store; there are {', '.join(available)}.",
            code="unknown_model",
            values={"available": available},
        ) from None


def _summary(models: Models, model: KnownModel, active: ModelIdentity) -> ModelSummary:
    loaded = models.registry.loaded_as(model.identity)
    is_active = model.identity == active
    return ModelSummary(
        name=model.identity.name,
        version=model.identity.version,
        sha256=model.identity.sha256,
        is_default=is_active,
        state="active" if is_active else "loaded" if loaded else "available",
        is_loaded=loaded is not None,
        intended_use=model.manifest.intended_use,
        execution_provider=loaded.execution_provider if loaded else None,
        precision=dict(loaded.precision) if loaded else {},
        precisions=precisions_of(model.manifest),
        operating_points=list(model.manifest.operating_points),
        default_operating_point=model.manifest.default_operating_point,
    )
