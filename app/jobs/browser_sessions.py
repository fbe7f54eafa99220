"""Sessions of browsers: a random id in a cookie, kept as a hash, that stands for an API key for a while."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from app.jobs.api_keys import ApiKey, KeyState, key_of
from app.jobs.database import Database
from app.jobs.rows import Who, add_audit
from app.jobs.tables import api_keys, browser_sessions

_SEEN_EVERY_S = 60.0
_MOST_OF_A_KEY = 100


@dataclass(frozen=True)
class Sessions:
    """Who is signed in. Blocking.

    Parameters
    ----------
    database
        Of the ledger.
    lasts_s, idle_s
        How long a session lives at most, and without being used.
    """

    database: Database
    lasts_s: float = 12 * 3600.0
    idle_s: float = 3600.0

    def begin(self, key: ApiKey, who: Who) -> str:
        """Sign in with a valid key; gives what the cookie holds. Of one key the newest hundred stay."""
        made = secrets.token_hex(32)
        table = browser_sessions.c
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            connection.execute(
                sa.delete(browser_sessions).where(
                    sa.or_(table.expires_at <= at, table.last_seen_at <= at - self.idle_s)
                )
            )
            newest = (
                sa.select(table.id_sha256)
                .where(table.key_id == key.id)
                .order_by(table.created_at.desc())
                .limit(_MOST_OF_A_KEY - 1)
            )
            kept = list(connection.execute(newest).scalars())
            connection.execute(sa.delete(browser_sessions).where(table.key_id == key.id, table.id_sha256.not_in(kept)))
            connection.execute(
                sa.insert(browser_sessions).values(
                    id_sha256=_hash(made), key_id=key.id, created_at=at, last_seen_at=at, expires_at=at + self.lasts_s
                )
            )
            add_audit(connection, at, who, "session.begin", None)
        return made

    def find(self, presented: str) -> ApiKey | None:
        """The key that a cookie stands for; None where the session has ended, or its key."""
        with self.database.reading() as connection:
            at = self.database.now(connection)
            query = (
                sa.select(api_keys, browser_sessions.c.last_seen_at)
                .join(browser_sessions, browser_sessions.c.key_id == api_keys.c.id)
                .where(
                    browser_sessions.c.id_sha256 == _hash(presented),
                    browser_sessions.c.expires_at > at,
                    browser_sessions.c.last_seen_at > at - self.idle_s,
                )
            )
            row = connection.execute(query).mappings().one_or_none()
        if row is None or (key := key_of(row)).state(at) is not KeyState.VALID:
            return None
        if at - row["last_seen_at"] > min(_SEEN_EVERY_S, self.idle_s / 10):
            with self.database.transaction() as connection:
                connection.execute(
                    sa.update(browser_sessions)
                    .where(browser_sessions.c.id_sha256 == _hash(presented))
                    .values(last_seen_at=at)
                )
        return key

    def end(self, presented: str, who: Who) -> bool:
        """Sign out; gives whether there was a session."""
        with self.database.transaction() as connection:
            ended = connection.execute(
                sa.delete(browser_sessions).where(browser_sessions.c.id_sha256 == _hash(presented))
            ).rowcount
            if ended:
                add_audit(connection, self.database.now(connection), who, "session.end", None)
        return ended > 0


def _hash(presented: str) -> str:
    """Looked up by the hash: how long that takes says nothing of the id."""
    return hashlib.sha256(presented.encode()).hexdigest()
