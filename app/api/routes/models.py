"""Which models are loaded, and what is known about them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.problems import NotFound, problem_responses
from app.api.service import ServiceDependency
from app.inference.manifest import ModelManifest
from app.inference.model_store import LoadedModel
from app.inference.precision import precisions_of

router = APIRouter(tags=["models"])


class ModelSummary(BaseModel):
    """One loaded model."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Semantic version.")
    sha256: str = Field(description="sha256 of the manifest, which holds the sha256 of every network.")
    is_default: bool = Field(description="Whether it answers when a request names no model.")
    intended_use: str = Field(description="What it is for, and what not.")
    execution_provider: str = Field(
        description="What runs the detector: an execution provider of ONNX Runtime, or OpenVINO."
    )
    precision: dict[str, str] = Field(description="By network: fp32, or the name of its variant that runs.")
    precisions: list[str] = Field(description="Those that LUNGNODULE_PRECISION can choose; figures in the manifest.")
    operating_points: list[str] = Field(description="Names that the form field operating_point takes.")
    default_operating_point: str = Field(description="The one in force when a request names none.")


class ModelList(BaseModel):
    """Every loaded model."""

    models: list[ModelSummary] = Field(description="The first is the default.")


class ModelDetails(ModelSummary):
    """One loaded model with its whole manifest."""

    manifest: ModelManifest = Field(
        description="Preprocessing, networks, operating points, measured figures and provenance."
    )


@router.get("/v1/models", summary="Loaded models")
async def list_loaded_models(service: ServiceDependency) -> ModelList:
    """Every model that can be named in a request, the default first."""
    return ModelList(models=[_summary(model, service.models[0]) for model in service.models])


@router.get("/v1/models/{name}/{version}", summary="One model and its manifest", responses=problem_responses(404))
async def show_model(name: str, version: str, service: ServiceDependency) -> ModelDetails:
    """The manifest of one loaded model: how it was trained, what was measured, what it must not be used for."""
    for model in service.models:
        if (model.identity.name, model.identity.version) == (name, version):
            return ModelDetails(**_summary(model, service.models[0]).model_dump(), manifest=model.manifest)
    available = [f"{model.identity.name}/{model.identity.version}" for model in service.models]
    raise NotFound(
        f"No such model is loaded; there are {', '.join(available)}.",
        code="unknown_model",
        values={"available": available},
    )


def _summary(model: LoadedModel, default: LoadedModel) -> ModelSummary:
    return ModelSummary(
        name=model.identity.name,
        version=model.identity.version,
        sha256=model.identity.sha256,
        is_default=model is default,
        intended_use=model.manifest.intended_use,
        execution_provider=model.execution_provider,
        precision=dict(model.precision),
        precisions=precisions_of(model.manifest),
        operating_points=list(model.manifest.operating_points),
        default_operating_point=model.manifest.default_operating_point,
    )
