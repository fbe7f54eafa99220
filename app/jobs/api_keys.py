"""Keys of programs: made once, shown once, kept as a hash.

A key is ``ln_<id>_<secret>``; the id finds the row, the secret is 256 random bits. SHA-256 is enough for it: a slow
hash protects what people choose, since that can be guessed; nobody guesses 256 random bits, and each request has to
check one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from app.identity import NAME_PATTERN, Identity, Role
from app.imaging.errors import OptionError
from app.jobs.database import Database
from app.jobs.rows import Row, Who, add_audit
from app.jobs.tables import api_keys

KEY_PATTERN = re.compile(r"ln_([0-9a-f]{12})_([0-9a-f]{64})")
_NOTE_USE_EVERY_S = 3600.0
_NOBODY = hashlib.sha256(b"no key has this").hexdigest()


class KeyState(StrEnum):
    """Whether a key opens anything."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class ApiKey:
    """One row, without the hash. Times are seconds since 1970 (UTC) by the database's clock."""

    id: str
    name: str
    roles: frozenset[Role]
    tenant: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    """To the hour."""

    def state(self, at: float) -> KeyState:
        """Whether it opens anything at a time."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        return KeyState.EXPIRED if self.expires_at is not None and at >= self.expires_at else KeyState.VALID

    @property
    def identity(self) -> Identity:
        """Who calls with it."""
        return Identity(f"key:{self.name}", self.name, self.roles, self.tenant)


@dataclass(frozen=True)
class ApiKeys:
    """The keys of an installation. Blocking.

    Parameters
    ----------
    database
        Of the ledger.
    """

    database: Database

    def create(self, name: str, roles: Iterable[Role], tenant: str, lasts_s: float | None, who: Who) -> str:
        """Make a key and give it; it cannot be shown again.

        Raises
        ------
        OptionError
            ``name_invalid``, ``roles_missing``, or ``key_exists``: a valid key has this name.
        """
        wanted = sorted(set(roles))
        for text in (name, tenant):
            if not re.fullmatch(NAME_PATTERN, text):
                raise OptionError(
                    "Names of keys and tenants are 1 to 48 of a-z, 0-9, point, - and _, beginning with a-z or 0-9.",
                    code="name_invalid",
                )
        if not wanted:
            raise OptionError("A key needs a role: submit, read or operate.", code="roles_missing")
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            if self._valid(connection, name, at):
                raise OptionError(
                    f"There is a valid key {name}. Rotate or revoke it, or take another name.", code="key_exists"
                )
            made = self._insert(connection, name, wanted, tenant, at, lasts_s)
            add_audit(connection, at, who, "key.create", None, key=name, roles=wanted, tenant=tenant)
        return made

    def rotate(self, name: str, overlap_s: float, who: Who) -> str:
        """Make another key of the same name, roles, tenant and life, and let the earlier ones end after the overlap.

        Raises
        ------
        OptionError
            ``key_unknown``: no valid key has this name.
        """
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            before = self._known(connection, name, at)
            newest = before[0]
            lasts_s = None if newest.expires_at is None else newest.expires_at - newest.created_at
            for key in before:
                ends_at = at + overlap_s if key.expires_at is None else min(key.expires_at, at + overlap_s)
                connection.execute(sa.update(api_keys).where(api_keys.c.id == key.id).values(expires_at=ends_at))
            made = self._insert(connection, name, sorted(newest.roles), newest.tenant, at, lasts_s)
            add_audit(connection, at, who, "key.rotate", None, key=name, overlap_s=overlap_s)
        return made

    def revoke(self, name: str, who: Who) -> int:
        """End every key of this name at once, and with it its sessions; gives how many.

        Raises
        ------
        OptionError
            ``key_unknown``: no valid key has this name.
        """
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            ended = self._known(connection, name, at)
            ids = [key.id for key in ended]
            connection.execute(sa.update(api_keys).where(api_keys.c.id.in_(ids)).values(revoked_at=at))
            add_audit(connection, at, who, "key.revoke", None, key=name, keys=len(ended))
        return len(ended)

    def listed(self) -> list[tuple[ApiKey, KeyState]]:
        """Every key there ever was, by name, the newest first, and whether it opens anything."""
        with self.database.reading() as connection:
            at = self.database.now(connection)
            query = sa.select(api_keys).order_by(api_keys.c.name, api_keys.c.created_at.desc())
            found = [key_of(row) for row in connection.execute(query).mappings()]
        return [(key, key.state(at)) for key in found]

    def find(self, presented: str) -> ApiKey | None:
        """The valid key that was presented; None for any other text."""
        fits = KEY_PATTERN.fullmatch(presented)
        if fits is None:
            return None
        with self.database.reading() as connection:
            at = self.database.now(connection)
            row = connection.execute(sa.select(api_keys).where(api_keys.c.id == fits[1])).mappings().one_or_none()
        told = hashlib.sha256(fits[2].encode()).hexdigest()
        is_right = hmac.compare_digest(told, row["secret_sha256"] if row is not None else _NOBODY)
        if row is None or not is_right:
            return None
        key = key_of(row)
        if key.state(at) is not KeyState.VALID:
            return None
        self._note_use(key, at)
        return key

    def _note_use(self, key: ApiKey, at: float) -> None:
        """To the hour, so that reading does not become writing."""
        if key.last_used_at is None or at - key.last_used_at > _NOTE_USE_EVERY_S:
            with self.database.transaction() as connection:
                connection.execute(sa.update(api_keys).where(api_keys.c.id == key.id).values(last_used_at=at))

    def _valid(self, connection: sa.Connection, name: str, at: float) -> list[ApiKey]:
        query = sa.select(api_keys).where(api_keys.c.name == name).order_by(api_keys.c.created_at.desc())
        found = connection.execute(self.database.locked_row(query)).mappings()
        return [key for row in found if (key := key_of(row)).state(at) is KeyState.VALID]

    def _known(self, connection: sa.Connection, name: str, at: float) -> list[ApiKey]:
        found = self._valid(connection, name, at)
        if not found:
            raise OptionError(f"No valid key is called {name}. `lungnodule keys list` shows all.", code="key_unknown")
        return found

    def _insert(
        self, connection: sa.Connection, name: str, roles: list[Role], tenant: str, at: float, lasts_s: float | None
    ) -> str:
        key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
        connection.execute(
            sa.insert(api_keys).values(
                id=key_id, name=name, secret_sha256=hashlib.sha256(secret.encode()).hexdigest(), roles=roles,
                tenant=tenant, created_at=at, expires_at=None if lasts_s is None else at + lasts_s,
            )
        )  # fmt: skip
        return f"ln_{key_id}_{secret}"


def key_of(row: Row) -> ApiKey:
    """A row of `api_keys` as a record."""
    return ApiKey(
        id=row["id"],
        name=row["name"],
        roles=frozenset(map(Role, row["roles"])),
        tenant=row["tenant"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
    )
