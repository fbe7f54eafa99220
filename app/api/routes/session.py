"""Signing in from a browser: a key is exchanged for a cookie that no script can read."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access.desk import COOKIE, AccessDependency, AccessDesk, identity_of, invalid_credentials, uses_cookie
from app.api.access.errors import AccessOff, NotAuthenticated
from app.api.access.gate import refuse_forgery
from app.api.access.rates import address_of
from app.api.problems import problem_responses
from app.api.small_body import SmallBodyRoute
from app.identity import Identity, Role
from app.jobs.rows import Who

router = APIRouter(tags=["access"], route_class=SmallBodyRoute)


class SignIn(BaseModel):
    """What a session is made of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, Field(min_length=1, max_length=256, description="An API key; never in the URL.")]


class SessionStatus(BaseModel):
    """Who is calling."""

    access: Literal["off", "required"] = Field(description="Whether callers must say who they are.")
    authenticated: bool = Field(description="Whether this one has.")
    name: str | None = Field(description="Of the key or subject.")
    roles: list[Role] = Field(description="submit, read, operate.")
    tenant: str | None = Field(description="Whose jobs are seen; operate sees those of all.")


@router.post(
    "/v1/session",
    status_code=204,
    summary="Sign in with a key",
    response_class=Response,
    responses={
        204: {"headers": {"Set-Cookie": {"description": "The session.", "schema": {"type": "string"}}}},
        **problem_responses(401, 409, 413, 422, 429, 503),
    },
)
async def sign_in(asked: SignIn, request: Request, access: AccessDependency) -> Response:
    """For pages: the cookie is HttpOnly and SameSite=Strict, ends after 12 hours, or one hour without a request.

    Whatever changes something then needs the header `X-Requested-With: lungnodule`.
    """
    settings = access.settings
    if not settings.access_required:
        raise AccessOff("Access control is off: there is nothing to sign in to.")
    client = request.client
    access.rates.refuse_misses(address_of(None if client is None else (client.host, client.port)))
    key = await access.run(access.keys.find, asked.key)
    if key is None:
        raise invalid_credentials()
    cookie = await access.run(access.sessions.begin, key, _who(request, key.identity))
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(access.sessions.lasts_s),
        path=settings.root_path or "/",
        secure=_is_https(request, access),
        httponly=True,
        samesite="strict",
    )
    return response


@router.get("/v1/session", summary="Who is calling", responses=problem_responses(503))
async def show_session(request: Request, access: AccessDependency) -> SessionStatus:
    """Answers everybody; what is not valid counts as nobody."""
    if not access.settings.access_required:
        found = identity_of(request)
        return SessionStatus(
            access="off", authenticated=False, name=None, roles=sorted(found.roles), tenant=found.tenant
        )
    try:
        identity = await access.identity(request)
    except NotAuthenticated:
        identity = None
    if identity is None:
        return SessionStatus(access="required", authenticated=False, name=None, roles=[], tenant=None)
    return SessionStatus(
        access="required",
        authenticated=True,
        name=identity.name,
        roles=sorted(identity.roles),
        tenant=identity.tenant,
    )


@router.delete(
    "/v1/session", status_code=204, summary="Sign out", response_class=Response, responses=problem_responses(403, 503)
)
async def sign_out(request: Request, access: AccessDependency) -> Response:
    """The session ends at once; without one nothing happens."""
    if uses_cookie(request):
        refuse_forgery(request)
        cookie = request.cookies[COOKIE]
        key = await access.run(access.sessions.find, cookie)
        if key is not None:
            await access.run(access.sessions.end, cookie, _who(request, key.identity))
    response = Response(status_code=204)
    response.delete_cookie(
        COOKIE,
        path=access.settings.root_path or "/",
        secure=_is_https(request, access),
        httponly=True,
        samesite="strict",
    )
    return response


def _is_https(request: Request, access: AccessDesk) -> bool:
    return access.settings.https_only or request.url.scheme == "https"


def _who(request: Request, identity: Identity) -> Who:
    return Who(identity.actor, request.scope.get("state", {}).get("request_id"), identity.tenant)
