"""DIMSE as a provider: C-ECHO and C-STORE for those whom the configuration lists, and for nobody else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from app.imaging.errors import LungNoduleError
from app.logs import described
from app.pacs.config import Listener
from app.pacs.errors import FailureReason, InstanceRefused
from app.pacs.instances import ACCEPTED_SYNTAXES, SOP_CLASSES, read_instance
from app.pacs.shelf import Received, Shelf

_SUCCESS = 0x0000


@dataclass(frozen=True)
class _Desk:
    """What the handlers share."""

    settings: Listener
    shelf: Shelf
    scratch: Path
    received: dict[Association, int] = field(default_factory=dict)
    """Bytes since the last instance, of each association."""


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
    OSError
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
    server = entity.start_server(
        (settings.host, settings.port),
        block=False,
        evt_handlers=[
            (evt.EVT_CONN_OPEN, _admit, [desk]),
            (evt.EVT_DATA_RECV, _count, [desk]),
            (evt.EVT_C_STORE, _store, [desk]),
            (evt.EVT_CONN_CLOSE, _forget, [desk]),
        ],
    )
    port = int(server.server_address[1])
    structlog.get_logger(__name__).info("listening for DICOM", ae_title=settings.ae_title, port=port)
    try:
        yield port
    finally:
        server.shutdown()
        entity.shutdown()


def _admit(event: Event, desk: _Desk) -> None:
    """Close at once what comes from another network than those listed."""
    address = ip_address(event.address[0])
    if not any(address in network for network in desk.settings.networks):
        structlog.get_logger(__name__).warning("association refused", reason="address")
        event.assoc.abort()


def _count(event: Event, desk: _Desk) -> None:
    """End an association whose instance is over the limit while it arrives, not after."""
    size = desk.received.get(event.assoc, 0) + len(event.data)
    desk.received[event.assoc] = size
    if size > desk.shelf.config.receive.max_instance_bytes:
        structlog.get_logger(__name__).warning("association ended", reason="instance_too_large")
        event.assoc.abort()


def _forget(event: Event, desk: _Desk) -> None:
    desk.received.pop(event.assoc, None)


def _store(event: Event, desk: _Desk) -> int:
    """Answer success only for what is safe on the disk."""
    desk.received[event.assoc] = 0
    path = desk.scratch / uuid.uuid4().hex
    try:
        path.write_bytes(event.encoded_dataset())
        instance = read_instance(path)
        if instance.sop_uid != event.request.AffectedSOPInstanceUID:
            return FailureReason.NOT_OF_THIS_STUDY
        desk.shelf.put([Received(path, instance)])
    except InstanceRefused as refusal:
        return refusal.reason
    except (LungNoduleError, OSError) as error:
        structlog.get_logger(__name__).error("instance not kept", failure=described(error))
        return FailureReason.OUT_OF_RESOURCES
    finally:
        path.unlink(missing_ok=True)
    return _SUCCESS
