"""A WebSocket (RFC 6455) as a client, for the events of a UPS server: text in, nothing else out."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
from urllib.parse import urlsplit

from app.outbound import connect
from app.pacs.config import Login
from app.pacs.errors import PacsTroubleError

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE, _PING, _PONG = 0x8, 0x9, 0xA
_MOST_BYTES = 1 << 20
_MOST_HEAD_BYTES = 1 << 14
_ALIVE = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)


class EventChannel:
    """One connection; opened when it is made.

    Parameters
    ----------
    url
        ``ws://`` or ``wss://``.
    login
        Who we are.
    timeout_s
        For the connection and for the rest of what has begun to arrive.
    allow_private
        As `app.outbound.refused_because` has it.

    Raises
    ------
    PacsTroubleError
        No connection, also where the address is refused; or no WebSocket behind it. As every method.
    """

    def __init__(self, url: str, login: Login | None, timeout_s: float, *, allow_private: bool) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        self._timeout_s = timeout_s
        self._arrived = bytearray()
        try:
            plain = connect(host, port, timeout_s, allow_private=allow_private, options=_ALIVE)
        except OSError:
            raise _unreachable() from None
        try:
            # Verifies the certificate, as requests does.
            context = ssl.create_default_context() if secure else None
            self._socket = plain if context is None else context.wrap_socket(plain, server_hostname=host)
            self._shake_hands(f"{parts.path or '/'}", parts.netloc, login)
        except OSError:
            plain.close()
            raise _unreachable() from None
        except PacsTroubleError:
            self.close()
            raise

    def receive(self, wait_s: float) -> str | None:
        """The next text; None where none has begun to arrive in that time."""
        if not self._arrived and not self._has_begun(wait_s):
            return None
        message = bytearray()
        while True:
            final, kind, payload = self._frame()
            if kind == _PING:
                self._send(_PONG, payload)
            elif kind == _CLOSE:
                raise PacsTroubleError("The worklist closed the event channel.", code="pacs_unreachable")
            elif kind != _PONG:
                message += payload
                if final:
                    return message.decode("utf-8", "replace")
            if kind in (_PING, _PONG) and not message:
                return None
            if len(message) > _MOST_BYTES:
                raise _senseless()

    def close(self) -> None:
        """Let it go."""
        self._socket.close()

    def _shake_hands(self, path: str, host: str, login: Login | None) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *_authorization(login), "", "",
        ]  # fmt: skip
        self._socket.sendall("\r\n".join(lines).encode())
        while (end := self._arrived.find(b"\r\n\r\n")) < 0:
            if len(self._arrived) > _MOST_HEAD_BYTES:
                raise _senseless()
            self._read_more()
        head = self._arrived[:end].decode("latin-1").split("\r\n")
        del self._arrived[: end + 4]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        digest = hashlib.sha1((key + _MAGIC).encode(), usedforsecurity=False).digest()
        if " 101 " not in f"{head[0]} " or headers.get("sec-websocket-accept") != base64.b64encode(digest).decode():
            raise _senseless()

    def _has_begun(self, wait_s: float) -> bool:
        self._socket.settimeout(wait_s)
        try:
            self._read_more()
        except TimeoutError:
            return False
        except OSError:
            raise _unreachable() from None
        finally:
            self._socket.settimeout(self._timeout_s)
        return True

    def _frame(self) -> tuple[bool, int, bytes]:
        """Whether it is the last of its message, its kind, its payload."""
        first, second = self._take(2)
        size = second & 0x7F
        if size >= 126:
            form = "!H" if size == 126 else "!Q"
            (size,) = struct.unpack(form, self._take(struct.calcsize(form)))
        if second & 0x80 or size > _MOST_BYTES:  # a server masks nothing
            raise _senseless()
        return bool(first & 0x80), first & 0x0F, self._take(size)

    def _take(self, count: int) -> bytes:
        while len(self._arrived) < count:
            try:
                self._read_more()
            except OSError:
                raise _unreachable() from None
        taken = bytes(self._arrived[:count])
        del self._arrived[:count]
        return taken

    def _read_more(self) -> None:
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise _unreachable()
        self._arrived += piece

    def _send(self, kind: int, payload: bytes) -> None:
        """Short ones only: a control frame has at most 125 bytes. A client masks."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[number % 4] for number, byte in enumerate(payload))
        try:
            self._socket.sendall(bytes([0x80 | kind, 0x80 | len(payload)]) + mask + masked)
        except OSError:
            raise _unreachable() from None


def _authorization(login: Login | None) -> list[str]:
    if login is None:
        return []
    secret = login.secret().get_secret_value()
    if login.user is None:
        return [f"Authorization: Bearer {secret}"]
    return [f"Authorization: Basic {base64.b64encode(f'{login.user}:{secret}'.encode()).decode()}"]


def _unreachable() -> PacsTroubleError:
    return PacsTroubleError("The event channel of the worklist does not answer.", code="pacs_unreachable")


def _senseless() -> PacsTroubleError:
    return PacsTroubleError("The event channel of the worklist is no WebSocket.", code="pacs_answer_invalid")
