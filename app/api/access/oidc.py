"""Tokens of an identity provider: what they say counts only when the provider's public key says that it signed them.

The keys are fetched from the one address of the settings. They are kept for ten minutes; a token with an unknown key id
makes them be fetched anew, at most once a minute. While the provider is away the keys that are there go on serving, for
a day.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from app.api.access.errors import NotAuthenticated, ProviderUnavailable
from app.identity import DEFAULT_TENANT, NAME_PATTERN, Identity, OidcProvider, Role
from app.outbound import GuardedConnection

FRESH_S = 600.0
REFETCH_S = 60.0
LONGEST_S = 86_400.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 1 << 20
_SUBJECT = re.compile(r"[A-Za-z0-9._@|-]{1,58}")


class _Unfit(Exception):
    """What the provider sends is no set of keys."""


@dataclass
class Keys:
    """The provider's public keys; safe to be asked from several threads.

    Parameters
    ----------
    provider
        From the settings.
    clock
        Seconds that only grow.
    """

    provider: OidcProvider
    clock: Callable[[], float] = time.monotonic
    _by_kid: dict[str | None, list[Any]] = field(default_factory=dict)
    _fetched_at: float | None = None
    _tried_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, kid: str | None) -> list[Any]:
        """The keys that a token may be signed with: that of its key id; without one, the only one there is.

        Raises
        ------
        ProviderUnavailable
            None were fetched within a day, and none can be.
        """
        with self._lock:
            now = self.clock()
            is_stale = self._fetched_at is None or now - self._fetched_at > FRESH_S
            if is_stale or not self._fitting(kid):
                self._fetch(now)
            if self._fetched_at is None or now - self._fetched_at > LONGEST_S:
                raise ProviderUnavailable(
                    "The identity provider does not show its keys. Try again later, or use an API key.",
                    values={"retry_after_s": 5},
                )
            return self._fitting(kid)

    def _fitting(self, kid: str | None) -> list[Any]:
        if kid is not None:
            return self._by_kid.get(kid, [])
        every = [key for keys in self._by_kid.values() for key in keys]
        return every if len(every) == 1 else []

    def _fetch(self, now: float) -> None:
        """At most once a minute; with no keys at all, once in five seconds."""
        pause_s = REFETCH_S if self._by_kid else _TIMEOUT_S
        if self._tried_at is not None and now - self._tried_at < pause_s:
            return
        self._tried_at = now
        try:
            self._by_kid = _imported(_fetched(self.provider.jwks_url))
        except (OSError, HTTPException, ValueError, _Unfit):
            return
        self._fetched_at = now


@dataclass(frozen=True)
class Tokens:
    """Judges tokens. Blocking, when keys are to be fetched.

    Parameters
    ----------
    provider, keys
        Whose tokens, and what they are signed with.
    """

    provider: OidcProvider
    keys: Keys

    def identity(self, token: str) -> Identity:
        """Who a token speaks for.

        Raises
        ------
        NotAuthenticated
            ``token_invalid``: signature, algorithm, issuer, audience or time do not fit, or a claim is missing.
        ProviderUnavailable
            There is no key to judge it by.
        """
        claims = self._verified(token)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise _invalid()
        return Identity(f"oidc:{_told(subject)}", _told(subject), self._roles(claims), self._tenant(claims))

    def _verified(self, token: str) -> dict[str, Any]:
        from joserfc import jws, jwt  # noqa: PLC0415 - only where there is a provider
        from joserfc.errors import JoseError  # noqa: PLC0415

        allowed = list(self.provider.algorithms)
        registry = jwt.JWTClaimsRegistry(
            leeway=self.provider.leeway_s,
            iss={"essential": True, "value": self.provider.issuer},
            aud={"essential": True, "value": self.provider.audience},
            exp={"essential": True},
        )
        try:
            header = jws.extract_compact(token.encode()).headers()
            kid = header.get("kid")
            if header.get("alg") not in allowed or not (kid is None or isinstance(kid, str)):
                raise _invalid()
            for key in self.keys.find(kid):
                told = jwt.decode(token, key, algorithms=allowed)
                registry.validate(told.claims)
                return told.claims
        except (JoseError, ValueError, TypeError):  # also what cryptography says to a key of another kind
            raise _invalid() from None
        raise _invalid()

    def _roles(self, claims: dict[str, Any]) -> frozenset[Role]:
        said = claims.get(self.provider.roles_claim)
        names = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        mapped: set[Role] = set()
        for name in (one for one in names if isinstance(one, str)):
            if name in self.provider.role_map:
                mapped.update(self.provider.role_map[name])
            elif not self.provider.role_map and name in tuple(Role):
                mapped.add(Role(name))
        return frozenset(mapped)

    def _tenant(self, claims: dict[str, Any]) -> str:
        if not self.provider.tenant_claim:
            return DEFAULT_TENANT
        said = claims.get(self.provider.tenant_claim)
        if not isinstance(said, str) or not re.fullmatch(NAME_PATTERN, said):
            raise _invalid()
        return said


def looks_like_token(presented: str) -> bool:
    """Whether it has the three parts of a signed token."""
    return presented.count(".") == 2


def _invalid() -> NotAuthenticated:
    return NotAuthenticated(
        "The token is not valid here: signature, issuer, audience, times or claims do not fit. Sign in again.",
        code="token_invalid",
    )


def _told(subject: str) -> str:
    """The subject as the audit trail holds it: as it is where it is harmless, else a hash."""
    return subject if _SUBJECT.fullmatch(subject) else f"sha256-{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


def _fetched(url: str) -> bytes:
    """The address is the operator's, so it may be a private one; redirects are not followed."""
    parts = urlsplit(url)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    connection = GuardedConnection(parts.hostname or "", parts.port, _TIMEOUT_S, allow_private=True, context=context)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "application/json", "User-Agent": "lungnodule"})
        answer = connection.getresponse()
        body = answer.read(_MOST_BYTES + 1)
    finally:
        connection.close()
    if answer.status != 200 or len(body) > _MOST_BYTES:
        raise _Unfit
    return body


def _imported(body: bytes) -> dict[str | None, list[Any]]:
    """Public keys by id; what is no public key for signatures is passed over."""
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import JWKRegistry  # noqa: PLC0415

    told = json.loads(body)
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise _Unfit
    keys: dict[str | None, list[Any]] = {}
    for one in listed:
        if not isinstance(one, dict) or one.get("kty") not in ("RSA", "EC", "OKP") or one.get("use", "sig") != "sig":
            continue
        try:
            keys.setdefault(one.get("kid"), []).append(JWKRegistry.import_key(one))
        except (JoseError, ValueError, TypeError):
            continue
    if not keys:
        raise _Unfit
    return keys
