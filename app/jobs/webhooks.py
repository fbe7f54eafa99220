"""Telling others that a job has ended, from a durable outbox, signed, to targets that the configuration names.

A client gives the name of a target, never an address: what is not configured cannot be reached. A redirect is an error,
and so is an address that the target must not have (`app.outbound`).
The message holds the job's id and state and nothing of the scan; whoever gets it fetches the result.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import sqlalchemy as sa
import structlog

from app.inference.findings import DISCLAIMER
from app.jobs.database import Database
from app.jobs.rows import Row
from app.jobs.tables import outbox
from app.outbound import AddressRefused, GuardedConnection
from app.settings import WebhookTarget

SIGNATURE_HEADER = "Lungnodule-Signature"
ID_HEADER = "Lungnodule-Webhook-Id"
MAX_TRIES = 20
"""With the pauses below, about 16 hours."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 3600.0
_TIMEOUT_S = 10.0
_CLAIM_S = 60.0
"""A message that was taken up and not heard of again is taken up anew after this."""


@dataclass(frozen=True)
class Deliveries:
    """Sends what is due.

    Parameters
    ----------
    database
        Of the outbox.
    targets
        By name.
    """

    database: Database
    targets: Mapping[str, WebhookTarget]

    def send_due(self) -> int:
        """Send every message whose time has come, each once; gives how many were delivered."""
        delivered = 0
        while (message := self._claim()) is not None:
            answer = self._send(message)
            self._note(message, answer)
            delivered += _is_success(answer)
        return delivered

    def _claim(self) -> Row | None:
        """Take one message, so that no other worker sends it at the same time."""
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            due = sa.select(outbox).where(outbox.c.next_at <= at).order_by(outbox.c.next_at).limit(1)
            if not self.database.is_sqlite:
                due = due.with_for_update(skip_locked=True)
            message = connection.execute(due).mappings().one_or_none()
            if message is not None:
                connection.execute(
                    sa.update(outbox)
                    .where(outbox.c.id == message["id"])
                    .values(next_at=at + _CLAIM_S, tries=message["tries"] + 1)
                )
            return message

    def _send(self, message: Row) -> str:
        """The status, or a word for why there was none."""
        target = self.targets.get(message["target"])
        if target is None:
            return "target_unknown"
        body = _body(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "lungnodule",
            ID_HEADER: message["id"],
            SIGNATURE_HEADER: signature(target.secret.get_secret_value(), body, int(time.time())),
        }
        try:
            return str(_post(target, body, headers))
        except AddressRefused:
            return "address_refused"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__

    def _note(self, message: Row, answer: str) -> None:
        tries = message["tries"] + 1
        with self.database.transaction() as connection:
            at = self.database.now(connection)
            changes: dict[str, object] = {"last_answer": answer, "next_at": None}
            if _is_success(answer):
                changes["delivered_at"] = at
            elif tries < MAX_TRIES:
                changes["next_at"] = at + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tries - 1))
            connection.execute(sa.update(outbox).where(outbox.c.id == message["id"]).values(changes))
        structlog.get_logger(__name__).info(
            "webhook", target=message["target"], job_id=message["job_id"], answer=answer, tries=tries
        )


def signature(secret: str, body: bytes, at: int) -> str:
    """``t=<seconds since 1970>,v1=<HMAC-SHA256 of "<t>.<body>", hexadecimal>``.

    The receiver computes it anew, compares in constant time, and refuses an old ``t``.
    """
    signed = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


def _body(message: Row) -> bytes:
    told = {
        "id": message["id"],
        "event": f"job.{message['event']}",
        "created_at": datetime.fromtimestamp(message["created_at"], UTC).isoformat(),
        "job": {"id": message["job_id"], "state": message["event"], "path": f"/v1/jobs/{message['job_id']}"},
        "disclaimer": DISCLAIMER,
    }
    return json.dumps(told, separators=(",", ":")).encode()


def _post(target: WebhookTarget, body: bytes, headers: Mapping[str, str]) -> int:
    """POST without following redirects and without a proxy from the environment."""
    parts = urlsplit(target.url)
    connection = GuardedConnection(
        parts.hostname or "",
        parts.port,
        _TIMEOUT_S,
        allow_private=target.allow_private,
        context=ssl.create_default_context() if parts.scheme == "https" else None,
    )
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, dict(headers))
        return connection.getresponse().status
    finally:
        connection.close()


def _is_success(answer: str) -> bool:
    return len(answer) == len("200") and answer.startswith("2")
