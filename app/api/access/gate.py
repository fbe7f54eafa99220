"""The gate before the routes: who calls, whether it may, and whose the job is, before a byte of the body is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.access.desk import AccessDesk, is_secret, uses_cookie
from app.api.access.errors import ForgeryRefused, KeyInAddress, NotAuthenticated, RoleMissing
from app.api.access.needs import Need, need_of, role_needed
from app.api.access.places import Place, Places, places_of
from app.api.access.rates import Allowance, address_of
from app.api.problems import problem_response
from app.identity import ANYBODY, Identity
from app.imaging.errors import LungNoduleError

ASKED_WITH, OURS = "x-requested-with", "lungnodule"
"""A header that no other site can make a browser send without asking first."""
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_SECRET_NAMES = {"api_key", "apikey", "api-key", "x-api-key", "access_token", "id_token"}


class Gate:
    """ASGI middleware inside the edge.

    Parameters
    ----------
    app
        What to guard.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._places: Places | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] == "websocket":  # there is none, and one that comes must bring its own guard
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._places is None:
            self._places = places_of(scope["app"].routes)
        place, parameters = self._places.find(scope)
        visit = _Visit(Request(scope), scope["app"].state.access, place, parameters)
        try:
            await visit.admit()
        except LungNoduleError as refusal:
            if isinstance(refusal, (NotAuthenticated, RoleMissing, ForgeryRefused)):
                await visit.desk.run(visit.desk.refusals.note, refusal.code)
            if place.path is not None:  # for the metric and the log
                scope["route"] = place
            await problem_response(visit.request, refusal)(scope, receive, visit.counted(send))
            return
        await self._app(scope, receive, visit.counted(send))


class _Visit:
    """One request before the gate."""

    def __init__(self, request: Request, desk: AccessDesk, place: Place, parameters: Mapping[str, str]) -> None:
        self.request = request
        self.desk = desk
        self._parameters = parameters
        self._need = need_of(request.method, place.path)
        client = request.client
        self._caller = address_of(None if client is None else (client.host, client.port))
        self._allowance: Allowance | None = None

    async def admit(self) -> None:
        """Let the request in.

        Raises
        ------
        LungNoduleError
            One of `app.api.access.errors`, `UnknownJob`, or the database does not answer.
        """
        _refuse_secret_in_address(self.request)
        if self._need is Need.PROBE:
            return
        _refuse_foreign_host(self.request, self.desk.settings.allowed_hosts)
        if self.request.method not in _SAFE and self.request.headers.get("sec-fetch-site") == "cross-site":
            raise ForgeryRefused("The request comes from a page of another site.")
        role = role_needed(self._need, self.desk.settings)
        if not self.desk.settings.access_required:
            self._count(ANYBODY)
            self._let_in(ANYBODY)
        elif role is None and self._need is not Need.KNOWN:
            self._count(ANYBODY)
        else:
            identity = await self._known()
            self._count(identity)
            if uses_cookie(self.request):
                refuse_forgery(self.request)
            if role is not None and not identity.may(role):
                raise RoleMissing(f"This needs the role {role}.", values={"role": role.value})
            if self._names_something:
                self.desk.rates.refuse_misses(self._caller)
                await self.desk.refuse_others(identity, self._parameters)
            self._let_in(identity)

    async def _known(self) -> Identity:
        refusal = NotAuthenticated("Send an API key or a token: `Authorization: Bearer ...` or `X-API-Key`.")
        try:
            identity = await self.desk.identity(self.request)
        except NotAuthenticated as invalid:
            identity, refusal = None, invalid
        if identity is None:
            self.desk.rates.refuse_misses(self._caller)
            raise refusal
        return identity

    @property
    def _names_something(self) -> bool:
        return any(name.endswith("_id") for name in self._parameters)

    def _count(self, identity: Identity) -> None:
        if identity.name is not None:
            self._caller = identity.actor
        self._allowance = self.desk.rates.count(self._caller)
        if identity is ANYBODY and self._names_something:
            self.desk.rates.refuse_misses(self._caller)

    def _let_in(self, identity: Identity) -> None:
        self.request.scope.setdefault("state", {})["identity"] = identity

    def counted(self, send: Send) -> Send:
        """Note an answer that found nothing or nobody, and say what is left."""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and self._need is not Need.PROBE:
                if message["status"] in (401, 404):
                    self.desk.rates.note_miss(self._caller)
                if self._allowance is not None:
                    MutableHeaders(scope=message).update(self._allowance.headers)
            await send(message)

        return noted


def refuse_forgery(request: Request) -> None:
    """An unsafe request that only a cookie vouches for must carry a header that other sites cannot set.

    Raises
    ------
    ForgeryRefused
        It does not.
    """
    if request.method not in _SAFE and request.headers.get(ASKED_WITH) != OURS:
        raise ForgeryRefused(
            f"With a session cookie this needs the header X-Requested-With: {OURS}.", code="header_missing"
        )


def _refuse_foreign_host(request: Request, allowed: Sequence[str]) -> None:
    """A page whose name was made to mean this machine (DNS rebinding) still says its own name."""
    host, colon, port = request.headers.get("host", "").rpartition(":")
    name = (host if colon and port.isdigit() else f"{host}{colon}{port}").strip("[]").lower()
    if allowed and name not in [one.strip("[]").lower() for one in allowed]:
        raise ForgeryRefused("LUNGNODULE_ALLOWED_HOSTS does not have the name in the header Host.", code="host_unknown")


def _refuse_secret_in_address(request: Request) -> None:
    named = any(name.lower() in _SECRET_NAMES or is_secret(value) for name, value in request.query_params.multi_items())
    if named or is_secret(request.url.path):
        raise KeyInAddress(
            "A key or token must not be in a URL, where logs and histories keep it. Send it in a header, and revoke "
            "this one."
        )
