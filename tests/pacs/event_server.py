"""The event channel of a UPS server: a WebSocket on loopback that sends what a test hands to it."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CONTINUED, CLOSE, PING = 0x1, 0x0, 0x8, 0x9


@dataclass
class EventServer:
    """Takes one connection at a time."""

    listener: socket.socket
    port: int
    answers_wrongly: bool = False
    requests: list[str] = field(default_factory=list)
    connection: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/subscribers/LUNGNODULE"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            self.requests.append(head.decode())
            lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
            key = lines["Sec-WebSocket-Key"].encode() + (b"wrong" if self.answers_wrongly else MAGIC)
            accept = base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest()).decode()
            if self.connection is not None:
                self.connection.close()
            self.connection = connection  # before the client knows that it has one
            connection.sendall(
                f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )

    def frame(self, kind: int, payload: bytes, *, final: bool = True) -> None:
        assert self.connection is not None
        size = _length(len(payload))
        self.connection.sendall(bytes([(0x80 if final else 0) | kind]) + size + payload)

    def tell(self, workitem_uid: str, event_type: int) -> None:
        """An event of PS3.4 CC.2.4, as PS3.18 sends it, in two fragments with a ping between."""
        event = {
            "00000002": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.4"]},
            "00001000": {"vr": "UI", "Value": [workitem_uid]},
            "00001002": {"vr": "US", "Value": [event_type]},
        }
        told = json.dumps(event).encode()
        self.frame(TEXT, told[:50], final=False)
        self.frame(PING, b"there?")
        self.frame(CONTINUED, told[50:])

    def pong(self) -> bytes:
        """What the client answered to a ping, unmasked."""
        assert self.connection is not None
        head = self.connection.recv(6)
        masked = self.connection.recv(head[1] & 0x7F)
        return bytes(byte ^ head[2 + number % 4] for number, byte in enumerate(masked))


@contextmanager
def event_server() -> Iterator[EventServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = EventServer(listener, int(listener.getsockname()[1]))
        thread = threading.Thread(target=made.serve)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            if made.connection is not None:
                made.connection.close()


def _length(size: int) -> bytes:
    """As RFC 6455, 5.2, writes it: in 7, 16 or 64 bits."""
    if size < 126:
        return bytes([size])
    return bytes([126]) + struct.pack("!H", size) if size < 1 << 16 else bytes([127]) + struct.pack("!Q", size)
