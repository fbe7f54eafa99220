"""pynetdicom's application entity, without the sockets that it leaves open."""

from __future__ import annotations

from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationSocket


class Entity(AE):
    """An `AE` that closes the connections it makes, also those that nobody takes."""

    def _create_socket(self, *args: Any, **named: Any) -> AssociationSocket:  # noqa: ANN401
        made = super()._create_socket(*args, **named)
        close_at_its_end(made)
        return made


def close_at_its_end(connection: AssociationSocket) -> None:
    """Have a connection closed also where it cannot be shut down.

    pynetdicom shuts a socket down, then closes it, and leaves out the second where the first fails: where the other
    side has reset the connection, or never took it. The socket then stays open until the garbage collector finds it.
    """
    shut_down = connection._shutdown_socket  # noqa: SLF001 - all ends go through it; not all of them are told as events

    def close() -> None:
        own = connection.socket
        shut_down()
        if own is not None:
            own.close()

    connection._shutdown_socket = close  # type: ignore[method-assign] # noqa: SLF001
