"""The description of the API for people: Swagger UI, ReDoc and the page of problems, with no request to elsewhere."""

from __future__ import annotations

import html
import re
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app.api.problem_kinds import ProblemKind
from app.api.problems import problem_kinds

STATIC = Path(__file__).parent / "static"

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Both viewers write style attributes of their own; ReDoc searches in a worker that it makes from a blob."""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
{head}
</head>
<body>
{body}
</body>
</html>
"""


def add_docs(app: FastAPI) -> None:
    """Serve /docs, /redoc and their assets."""
    app.mount("/static", _Assets(directory=STATIC), name="static")
    router = APIRouter(include_in_schema=False)
    router.add_api_route("/docs", _swagger_ui, methods=["GET"])
    router.add_api_route("/redoc", _redoc, methods=["GET"])
    app.include_router(router)


def add_front_pages(app: FastAPI, *, docs: bool) -> None:
    """Serve / and /problems; the type of every problem points to the latter."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def front(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        wants_page = "text/html" in request.headers.get("accept", "")
        return RedirectResponse(f"{root}{'/workspace/' if wants_page else '/docs' if docs else '/v1/capabilities'}")

    router.add_api_route("/problems", _problems_page, methods=["GET"])
    app.include_router(router)


class _Assets(StaticFiles):
    """Static files that a browser may keep for a day."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "public, max-age=86400"
        return response


async def _swagger_ui() -> Response:
    return _page(
        "lungnodule API",
        '<link rel="stylesheet" href="static/swagger-ui.css">\n'
        '<script defer src="static/swagger-ui-bundle.js"></script>\n'
        '<script defer src="static/swagger-ui-start.js"></script>',
        '<div id="swagger-ui"></div>',
    )


async def _redoc() -> Response:
    return _page(
        "lungnodule API",
        '<link rel="stylesheet" href="static/page.css">\n'
        '<script defer src="static/redoc.standalone.js"></script>\n'
        '<script defer src="static/redoc-start.js"></script>',
        '<div id="redoc"></div>',
    )


async def _problems_page() -> Response:
    sections = "\n".join(_section(kind) for kind in problem_kinds())
    return _page(
        "lungnodule API: problems",
        '<link rel="stylesheet" href="static/page.css">',
        "<main><h1>Problems</h1><p>Every error is an <code>application/problem+json</code> document (RFC 9457). Its "
        "<code>type</code> leads to a section of this page; its <code>code</code> may be more precise.</p>\n"
        f"{sections}</main>",
    )


def _section(kind: ProblemKind) -> str:
    return (
        f'<section id="{html.escape(kind.name)}"><h2>{html.escape(kind.title)}</h2>'
        f"<p>Status {kind.status}, type <code>{html.escape(kind.name)}</code>.</p>"
        f"<p>{_with_code(kind.advice)}</p></section>"
    )


def _with_code(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _page(title: str, head: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        _PAGE.format(title=title, head=head, body=body), headers={"content-security-policy": _PAGE_POLICY}
    )
