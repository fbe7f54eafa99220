"""Serves the page and its modules; nothing of a patient is in any of them."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_workspace(app: FastAPI) -> None:
    """Serve /workspace/ and its modules."""
    app.mount("/workspace/static", _Modules(directory=STATIC), name="workspace-static")
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/workspace", _to_the_page, methods=["GET"])
    router.add_api_route("/workspace/", _page, methods=["GET"])
    app.include_router(router)


class _Modules(StaticFiles):
    """Files that are asked for anew with their ETag: modules of two versions must not be mixed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "no-cache"
        return response


async def _to_the_page(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/workspace/")


async def _page() -> Response:
    return FileResponse(STATIC / "index.html", headers={"content-security-policy": PAGE_POLICY})
