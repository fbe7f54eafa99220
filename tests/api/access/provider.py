"""An identity provider on loopback: it shows public keys, signs tokens, and can go away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from app.identity import OidcProvider

ISSUER, AUDIENCE = "https://login.example/realm", "lungnodule"


@dataclass
class Provider:
    """Its keys by id, and how it answers."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    answer: bytes | None = None
    location: str = ""
    asked: int = 0

    def settings(self, **changes: Any) -> OidcProvider:
        fields = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": self.url, "tenant_claim": "department"}
        return OidcProvider(**{**fields, **changes})

    def add_key(self, kid: str, kind: str = "RSA") -> None:
        made = RSAKey.generate_key(2048) if kind == "RSA" else ECKey.generate_key("P-256")
        self.keys[kid] = made

    def token(
        self, kid: str = "first", *, alg: str = "RS256", key: Any = None, header: Any = None, **claims: Any
    ) -> str:
        now = int(time.time())
        told = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": now + 300, "iat": now, "roles": ["submit", "read"],
            "department": "radiology", **claims,
        }  # fmt: skip
        told = {name: value for name, value in told.items() if value is not None}
        first = {"alg": alg, "kid": kid, **(header or {})}
        first = {name: value for name, value in first.items() if value is not None}
        return jwt.encode(first, told, key or self.keys[kid], algorithms=[alg])

    def shown(self) -> bytes:
        if self.answer is not None:
            return self.answer
        return json.dumps(
            {"keys": [{**key.as_dict(private=False), "kid": kid} for kid, key in self.keys.items()]}
        ).encode()


@contextmanager
def running_provider() -> Iterator[Provider]:
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            body = made.shown()
            self.send_response(made.status)
            self.send_header("Location", made.location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()
