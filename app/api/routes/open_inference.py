"""The Open Inference Protocol (KServe V2) for the networks themselves: docs/models.md.

Its errors are ``{"error": ...}`` with the statuses of our own table. It is described by its own specification, not in
/openapi.json.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import version as installed_version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api.errors import InvalidInference
from app.api.network_desk import NamedNetwork, description, find_network, run_network
from app.api.open_inference import HEADER_LENGTH, read_inference, written_answer
from app.api.problems import problem_response
from app.api.service import Service, ServiceDependency
from app.imaging.errors import LungNoduleError, UploadTooLarge
from app.uploads import UploadTooSlow


class ProtocolRoute(APIRoute):
    """Answers errors in the protocol's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, and what it raises as ``{"error": ...}``."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (LungNoduleError, HTTPException, RequestValidationError) as error:
                problem = problem_response(request, error)  # notes it for the edge, too
                told = json.loads(bytes(problem.body))["detail"]
                kept = {name: value for name, value in problem.headers.items() if name == "retry-after"}
                return JSONResponse({"error": told}, problem.status_code, kept)

        return answered


router = APIRouter(prefix="/v2", route_class=ProtocolRoute, include_in_schema=False)


@router.get("")
async def server_metadata() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": "lungnodule", "version": installed_version("lungnodule"), "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
async def server_live() -> dict[str, bool]:
    """The process lives."""
    return {"live": True}


@router.get("/health/ready")
async def server_ready(service: ServiceDependency) -> dict[str, bool]:
    """The model in force can be used here."""
    service.refuse_when_draining()
    service.refuse_when_intake_only()
    await asyncio.to_thread(service.models.default)
    return {"ready": True}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
async def model_metadata(name: str, service: ServiceDependency, version: str | None = None) -> dict[str, Any]:
    """Inputs and outputs of a network."""
    service.refuse_when_intake_only()
    network = await asyncio.to_thread(find_network, service, name, version)
    return await asyncio.to_thread(description, service, network)


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(name: str, service: ServiceDependency, version: str | None = None) -> dict[str, Any]:
    """The network's model is in the store and its manifest is valid."""
    service.refuse_when_draining()
    service.refuse_when_intake_only()
    await asyncio.to_thread(find_network, service, name, version)
    return {"name": name, "ready": True}


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(name: str, request: Request, service: ServiceDependency, version: str | None = None) -> Response:
    """Run a network once, in its turn on the device."""
    service.refuse_when_draining()
    service.refuse_when_intake_only()
    with service.line.place():
        network = await asyncio.to_thread(find_network, service, name, version)
        body = await _body(request, service)
        return await _inferred(request, service, network, body)


async def _inferred(request: Request, service: Service, network: NamedNetwork, body: bytes) -> Response:
    asked = await asyncio.to_thread(read_inference, body, request.headers.get(HEADER_LENGTH))
    began = time.perf_counter()
    outputs, waited_s = await service.line.run(
        lambda abandoned: run_network(service, network, asked, abandoned), request.receive
    )
    service.metrics.observe_stages({"wait": waited_s, "infer": time.perf_counter() - began - waited_s})
    version = network.model.identity.version
    content, headers = await asyncio.to_thread(written_answer, asked, network.name, version, outputs)
    return Response(content, headers=headers)


async def _body(request: Request, service: Service) -> bytes:
    """The whole body, bounded in bytes and time while it arrives."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InvalidInference("Compressed bodies are not read; send it as it is.", code="compressed_body")
    limit, seconds = service.settings.max_inference_bytes, service.settings.upload_timeout_s
    received = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                received += part
                if len(received) > limit:
                    raise UploadTooLarge(
                        f"More than {limit} bytes (LUNGNODULE_MAX_INFERENCE_BYTES).", values={"limit_bytes": limit}
                    )
    except TimeoutError:
        raise UploadTooSlow(f"The body took more than {seconds:g} s.", values={"limit_s": seconds}) from None
    return bytes(received)
