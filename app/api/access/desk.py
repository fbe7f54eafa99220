"""What judging a caller needs: keys, sessions, the identity provider, rates. Made once, by the app factory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ParamSpec, TypeVar

import structlog
from fastapi import Depends, Request

from app.api.access.errors import NotAuthenticated
from app.api.access.oidc import Keys, Tokens, looks_like_token
from app.api.access.rates import Rates, rates_of
from app.identity import ANYBODY, Identity, is_loopback
from app.jobs.api_keys import KEY_PATTERN, ApiKeys
from app.jobs.browser_sessions import Sessions
from app.jobs.database import Database
from app.jobs.ownership import tenant_of_batch, tenant_of_job
from app.jobs.records import DatabaseUnavailable, UnknownJob
from app.jobs.rows import Who, add_audit
from app.settings import Settings

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

COOKIE = "lungnodule_session"
_THREADS = 4
_TELL_EVERY_S = 60.0
_REFUSED = Who("service")


@dataclass
class Refusals:
    """Answers 401 and 403, counted; the audit trail gets one row a minute at most, however many there are."""

    database: Database
    counts: Counter[str] = field(default_factory=Counter)
    told_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, code: str) -> None:
        """Count one; write down what was counted, when it is time. Blocking."""
        with self.lock:
            self.counts[code] += 1
            is_time = time.monotonic() - self.told_at >= _TELL_EVERY_S
        if is_time:
            self.tell()

    def tell(self) -> None:
        """Write down what was counted."""
        with self.lock:
            counts, self.counts, self.told_at = dict(self.counts), Counter(), time.monotonic()
        if not counts:
            return
        try:
            with self.database.transaction() as connection:
                add_audit(connection, self.database.now(connection), _REFUSED, "access.refused", None, **counts)
        except DatabaseUnavailable:
            with self.lock:
                self.counts.update(counts)


@dataclass(frozen=True)
class AccessDesk:
    """Judges callers.

    Parameters
    ----------
    settings, database
        Of the installation.
    keys, sessions, tokens
        By whom callers are known; tokens only where there is an identity provider.
    rates, refusals
        What is counted.
    threads
        For what blocks; of its own, so that nobody waits for uploads to be told who they are.
    """

    settings: Settings
    database: Database
    keys: ApiKeys
    sessions: Sessions
    tokens: Tokens | None
    rates: Rates
    refusals: Refusals
    threads: ThreadPoolExecutor

    async def run(self, call: Callable[Arguments, Result], *args: Arguments.args, **named: Arguments.kwargs) -> Result:
        """Run what blocks outside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(call, *args, **named))

    async def identity(self, request: Request) -> Identity | None:
        """Who calls; None where nobody says so.

        Raises
        ------
        NotAuthenticated
            What was said is not valid.
        ProviderUnavailable, DatabaseUnavailable
            It cannot be judged now.
        """
        if not self.settings.access_required:
            return ANYBODY
        presented = _presented(request)
        if presented is not None:
            if self.tokens is not None and looks_like_token(presented):
                return await self.run(self.tokens.identity, presented)
            key = await self.run(self.keys.find, presented)
        elif (cookie := request.cookies.get(COOKIE)) is not None:
            key = await self.run(self.sessions.find, cookie)
        else:
            return None
        if key is None:
            raise invalid_credentials()
        return key.identity

    async def refuse_others(self, identity: Identity, parameters: Mapping[str, str]) -> None:
        """Jobs and batches of other tenants are to a caller as those that do not exist.

        Raises
        ------
        UnknownJob
            A parameter of the path names no job or batch of the caller's tenant; the same for both reasons.
        """
        if identity.sees_tenant is None:
            return
        for name, value in parameters.items():
            is_job, is_batch = name.endswith("job_id"), name.endswith("batch_id")
            if is_job and await self.run(tenant_of_job, self.database, value) != identity.tenant:
                raise UnknownJob("No job has this id.")
            if is_batch and await self.run(tenant_of_batch, self.database, value) != identity.tenant:
                raise UnknownJob("No batch has this id.", code="unknown_batch")


def invalid_credentials() -> NotAuthenticated:
    """Unknown, expired, revoked and forged are not told apart."""
    return NotAuthenticated("The key or session is not valid here.", code="credentials_invalid")


def uses_cookie(request: Request) -> bool:
    """Whether a caller is known by nothing but its cookie, which a browser sends whoever asks for it."""
    return _presented(request) is None and COOKIE in request.cookies


def is_secret(text: str) -> bool:
    """Whether it is a key, wherever it stands."""
    return KEY_PATTERN.search(text) is not None


@contextmanager
def open_access(settings: Settings, database: Database) -> Iterator[AccessDesk]:
    """The desk, for as long as the app runs; says in one line who may call."""
    tokens = None if settings.oidc is None else Tokens(settings.oidc, Keys(settings.oidc))
    refusals = Refusals(database)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="access") as threads:
        desk = AccessDesk(
            settings, database, ApiKeys(database), Sessions(database), tokens, rates_of(settings), refusals, threads
        )
        _tell_start(desk)
        yield desk
        refusals.tell()


def _tell_start(desk: AccessDesk) -> None:
    settings, log = desk.settings, structlog.get_logger(__name__)
    if not settings.access_required:
        if is_loopback(settings.host):
            log.info("access is off: only this machine reaches the service", access="off", host=settings.host)
        else:
            log.warning(
                "ACCESS IS OFF: WHOEVER REACHES THIS ADDRESS SEES AND ERASES EVERYTHING. LUNGNODULE_ACCESS=required "
                "asks for keys",
                access="off",
                host=settings.host,
            )
        return
    valid = sum(state == "valid" for _, state in desk.keys.listed())
    told = {"access": "required", "host": settings.host, "keys": valid, "oidc": settings.oidc is not None}
    if valid == 0 and settings.oidc is None:
        log.warning(
            "access is required and there is no key yet: lungnodule keys create NAME --roles submit,read", **told
        )
    else:
        log.info("access is required", **told)


def _presented(request: Request) -> str | None:
    """What the headers hold: a key or a token. Another scheme than Bearer is meant for somebody else, say a proxy."""
    key = request.headers.get("x-api-key")
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    return rest.strip() if key is None and scheme.lower() == "bearer" else key


def get_access(request: Request) -> AccessDesk:
    """FastAPI dependency."""
    desk: AccessDesk = request.app.state.access
    return desk


AccessDependency = Annotated[AccessDesk, Depends(get_access)]


def identity_of(request: Request) -> Identity:
    """Who the gate found to be calling."""
    found = request.scope.get("state", {}).get("identity")
    return found if isinstance(found, Identity) else ANYBODY
