"""HTTP to a PACS: no redirects, no proxy or login from the environment, limits on time and size of an answer.

Each connection goes to an address that was judged (`app.outbound`).
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from app.imaging.errors import LungNoduleError
from app.outbound import connect
from app.pacs.config import Login
from app.pacs.errors import PacsTroubleError

_CHUNK = 1 << 16


class AnswerTooLarge(LungNoduleError):
    """A PACS sends more than is taken."""

    default_code = "answer_too_large"


class WebSession(requests.Session):
    """A session with one server.

    Parameters
    ----------
    login
        Who we are; the secret is read anew for each request.
    timeout_s
        For the connection, and for each wait for a piece of the answer; ten times that for the whole answer.
    max_answer_bytes
        Most that is read into memory.
    allow_private
        Whether the server may have an address of this machine or a private network.
    """

    def __init__(self, login: Login | None, timeout_s: float, max_answer_bytes: int, *, allow_private: bool) -> None:
        super().__init__()
        self.trust_env = False
        self.adapters.clear()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _GuardedAdapter(allow_private=allow_private))
        self._login = login
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes

    def request(self, method: str, url: str | bytes, *args: Any, **named: Any) -> requests.Response:  # noqa: ANN401
        """As `requests.Session.request`, within the limits; the answer is whole when this returns.

        Raises
        ------
        PacsTroubleError
            Redirect, 401 or 403.
        AnswerTooLarge
            More than ``max_answer_bytes``.
        requests.RequestException
            No answer.
        """
        memory = io.BytesIO()
        with self._asked(method, url, *args, **named) as response:
            self._read(response, memory, self._max_answer_bytes)
        memory.seek(0)
        whole = requests.Response()
        whole.status_code, whole.reason, whole.url = response.status_code, response.reason, response.url
        whole.headers, whole.encoding, whole.request = response.headers, response.encoding, response.request
        whole.raw = memory
        return whole

    def download(self, url: str, target: Path, max_bytes: int) -> int:
        """GET a file to the disk; gives the status. Only of 200 is anything written.

        Raises
        ------
        PacsTroubleError, AnswerTooLarge, requests.RequestException
            As `request`.
        """
        response = self._asked("GET", url)
        with response, target.open("wb") as file:
            if response.status_code == 200:
                self._read(response, file, max_bytes)
            return response.status_code

    def fetch(self, url: str, accept: str, target: Path, max_bytes: int) -> requests.Response:
        """GET an answer to the disk; gives it without its body. Only of 200 is anything written.

        Raises
        ------
        PacsTroubleError, AnswerTooLarge, requests.RequestException
            As `request`.
        """
        response = self._asked("GET", url, headers={"Accept": accept})
        with response, target.open("wb") as file:
            if response.status_code == 200:
                self._read(response, file, max_bytes)
        return response

    def _asked(self, method: str, url: str | bytes, *args: Any, **named: Any) -> requests.Response:  # noqa: ANN401
        named |= {"timeout": self._timeout_s, "allow_redirects": False, "stream": True}
        if self._login is not None:
            named["auth"] = _authentication(self._login)
        response = super().request(method, url, *args, **named)
        status = response.status_code
        if 300 <= status < 400 or status in (401, 403):
            response.close()
            code = "pacs_redirects" if status < 400 else "pacs_denies_access"
            raise PacsTroubleError(f"The PACS answers {status}.", code=code, values={"status": status})
        return response

    def _read(self, response: requests.Response, target: IO[bytes], most: int) -> None:
        """Take the answer in, unpacked: the limit holds for what comes out of a compressed one."""
        deadline = time.monotonic() + 10 * self._timeout_s
        size = 0
        for piece in response.iter_content(_CHUNK):
            size += len(piece)
            if size > most:
                raise AnswerTooLarge(f"The PACS sends more than {most} bytes.", values={"limit_bytes": most})
            if time.monotonic() > deadline:
                raise PacsTroubleError("The PACS takes too long to send its answer.", code="pacs_too_slow")
            target.write(piece)


@contextmanager
def web_trouble_told() -> Iterator[None]:
    """Turn what requests raises into an error of ours, without the address or the header it may quote.

    Raises
    ------
    PacsTroubleError
        ``pacs_unreachable`` or ``pacs_http_<status>``.
    """
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise PacsTroubleError(
            f"The PACS answers {status}.", code=f"pacs_http_{status}", values={"status": status}
        ) from None
    except (requests.RequestException, OSError) as error:
        raise PacsTroubleError(f"The PACS does not answer ({type(error).__name__}).", code="pacs_unreachable") from None


class _GuardedAdapter(HTTPAdapter):
    """Connections to judged addresses only."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **named: Any) -> None:  # noqa: ANN401
        """As `HTTPAdapter`, with pools whose connections look at the address."""
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = _guarded_pools(allow_private=self._allow_private)


def _guarded_pools(*, allow_private: bool) -> dict[str, type[HTTPConnectionPool]]:
    def judged(connection: HTTPConnection) -> socket.socket:
        timeout_s = connection.timeout if isinstance(connection.timeout, (int, float)) else None
        options: Any = connection.socket_options or ()
        try:
            return connect(connection.host, connection.port, timeout_s, allow_private=allow_private, options=options)
        except OSError as error:
            raise NewConnectionError(connection, type(error).__name__) from error

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return judged(self)

    class Encrypted(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return judged(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def _authentication(login: Login) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    secret = login.secret().get_secret_value()
    if login.user is not None:
        return requests.auth.HTTPBasicAuth(login.user.encode(), secret.encode())

    def bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {secret}"
        return request

    return bearer
