"""DIMSE as a provider: C-ECHO and C-STORE for those whom the configuration lists, and for nobody else."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket

from app.imaging.errors import LungNoduleError
from app.logs import described
from app.pacs.config import Listener
from app.pacs.entity import close_at_its_end
from app.pacs.errors import FailureReason, InstanceRefused, ListenerUnavailable
from app.pacs.instances import ACCEPTED_SYNTAXES, SOP_CLASSES, read_instance
from app.pacs.shelf import Shelf

_SUCCESS = 0x0000
_LONGEST_REQUEST = 1 << 17
"""Of an association request, which no PDU limit holds for: 128 contexts with all their syntaxes take half."""


class _Refused(OSError):
    """Ends a connection as if the other side had closed it."""


class _Gate:
    """Stands before a connection's `recv`: pynetdicom would take a PDU of 4 GB, and any number of them, into memory.

    Parameters
    ----------
    connection
        pynetdicom's.
    longest_pdu, largest_instance
        Bytes.
    """

    def __init__(self, connection: AssociationSocket, longest_pdu: int, largest_instance: int) -> None:
        self._connection = connection
        self._receive = connection.recv
        self._longest_pdu = longest_pdu
        self._largest_instance = largest_instance
        self.bytes_of_instance = 0

    def __call__(self, size: int) -> bytearray:
        """Read, unless a limit is passed."""
        self.bytes_of_instance += size
        if size > self._longest_pdu:
            raise self._refused("pdu_too_long")
        if self.bytes_of_instance > self._largest_instance:
            raise self._refused("instance_too_large")
        return self._receive(size)

    def _refused(self, reason: str) -> _Refused:
        structlog.get_logger(__name__).warning("connection ended", reason=reason)
        if self._connection.socket is not None:
            self._connection.socket.close()
        return _Refused(reason)


@dataclass(frozen=True)
class _Desk:
    """What the handlers share."""

    settings: Listener
    shelf: Shelf
    scratch: Path
    gates: WeakKeyDictionary[Association, _Gate] = field(default_factory=WeakKeyDictionary)
    """Of each open connection."""


@contextmanager
def listening(settings: Listener, shelf: Shelf, scratch: Path) -> Iterator[int]:
    """Listen until the context ends; gives the port.

    Parameters
    ----------
    settings
        Titles, networks, limits.
    shelf
        Where instances go.
    scratch
        Folder of this process, on the shelf's file system.

    Raises
    ------
    ListenerUnavailable
        The address cannot be listened on.
    """
    entity = AE(settings.ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.calling_ae_titles)
    entity.maximum_pdu_size = settings.max_pdu_bytes
    entity.maximum_associations = settings.max_associations
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = settings.idle_timeout_s
    entity.add_supported_context(Verification)
    for sop_class in SOP_CLASSES:
        entity.add_supported_context(sop_class, list(ACCEPTED_SYNTAXES))
    desk = _Desk(settings, shelf, scratch)
    with _address_named(settings):
        server = entity.start_server(
            (settings.host, settings.port),
            block=False,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _admit, [desk]),
                (evt.EVT_C_STORE, _store, [desk]),
            ],
        )
    if server is None:  # only where it is told to block
        raise RuntimeError
    port = int(server.server_address[1])
    structlog.get_logger(__name__).info("listening for DICOM", ae_title=settings.ae_title, port=port)
    try:
        yield port
    finally:
        server.shutdown()
        entity.shutdown()


def check_address(settings: Listener) -> None:
    """Say before anything is started that the address is not to be had.

    Raises
    ------
    ListenerUnavailable
        As `listening`.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with _address_named(settings), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as pynetdicom does
        probe.bind((settings.host, settings.port))
        probe.listen()


@contextmanager
def _address_named(settings: Listener) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ListenerUnavailable(
            f"The DIMSE provider cannot listen on {settings.host} port {settings.port}: {error.strerror}. "
            "Change host or port of [dimse] in the file of LUNGNODULE_PACS_CONFIG.",
            values={"port": settings.port},
        ) from None


def _admit(event: Event, desk: _Desk) -> None:
    """Put a gate before each connection; it stays shut for one from another network than those listed."""
    settings = desk.settings
    connection: Any = event.assoc.dul.socket
    close_at_its_end(connection)
    address = ip_address(event.address[0])  # type: ignore[attr-defined]
    is_known = any(address in network for network in settings.networks)
    if not is_known:
        structlog.get_logger(__name__).warning("connection refused", reason="address")
    longest = max(settings.max_pdu_bytes, _LONGEST_REQUEST) if is_known else 0
    connection.recv = _Gate(connection, longest, desk.shelf.config.receive.max_instance_bytes)
    desk.gates[event.assoc] = connection.recv


def _store(event: Event, desk: _Desk) -> int:
    """Answer success only for what is safe on the disk."""
    if (gate := desk.gates.get(event.assoc)) is not None:
        gate.bytes_of_instance = 0
    path = desk.scratch / uuid.uuid4().hex
    try:
        path.write_bytes(event.encoded_dataset())
        instance = read_instance(path)
        asked = getattr(event.request, "AffectedSOPInstanceUID", None)
        if instance.sop_uid != asked:
            return FailureReason.DOES_NOT_MATCH
        desk.shelf.put([desk.shelf.taken(path, instance)])
    except InstanceRefused as refusal:
        return refusal.reason
    except (LungNoduleError, OSError) as error:
        structlog.get_logger(__name__).error("instance not kept", failure=described(error))
        return FailureReason.OUT_OF_RESOURCES
    finally:
        path.unlink(missing_ok=True)
    return _SUCCESS
