"""The parts of a PACS connection, put together from its configuration, and the threads that keep it going."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from app.imaging.errors import LungNoduleError
from app.jobs.installation import Jobs
from app.logs import described
from app.pacs.cancel_requests import CancelRequests
from app.pacs.config import PacsConfig, WebTarget
from app.pacs.handover import Handover, MakeOrder
from app.pacs.orthanc import OrthancPoller, check_orthanc
from app.pacs.returns import Destination, MakeObjects, Returns
from app.pacs.shelf import Shelf
from app.pacs.ups_client import UpsClient
from app.pacs.workitem_input import InputDesk
from app.pacs.worklist import Performer
from app.upload_folders import process_folder

_ROUND_S = 1.0
_TIDY_EVERY = 30
_STOP_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Pacs:
    """Everything that is asked of the connection.

    Parameters
    ----------
    config
        As it was read.
    shelf, handover, returns, pollers, performers
        The parts.
    scratch
        Folder of this process, on the file system of the shelf.
    """

    config: PacsConfig
    shelf: Shelf
    handover: Handover
    returns: Returns
    pollers: tuple[OrthancPoller, ...]
    performers: tuple[Performer, ...]
    scratch: Path


def destinations_of(config: PacsConfig) -> dict[str, Destination]:
    """Every target of the configuration, by name; their libraries are imported here, because that takes a while."""
    from app.pacs.dicomweb import WebDestination  # noqa: PLC0415
    from app.pacs.dimse import DimseDestination  # noqa: PLC0415

    return {
        name: WebDestination(target) if isinstance(target, WebTarget) else DimseDestination(target)
        for name, target in config.targets.items()
    }


def checks_of(config: PacsConfig) -> dict[str, Callable[[], str]]:
    """For every PACS that the configuration names, what asks whether it is there."""
    asked: dict[str, Callable[[], str]] = {
        f"target {name}": destination.check for name, destination in destinations_of(config).items()
    }
    asked |= {f"orthanc {name}": partial(check_orthanc, poller) for name, poller in config.orthanc.items()}
    return asked | {f"worklist {name}": UpsClient(worklist).check for name, worklist in config.worklist.items()}


@contextmanager
def open_pacs(jobs: Jobs, config: PacsConfig, make_order: MakeOrder, make_objects: MakeObjects) -> Iterator[Pacs]:
    """The parts, for as long as the process runs; nothing moves yet.

    Raises
    ------
    OSError
        The data folder cannot be written.
    """
    shelf = Shelf(jobs.database, jobs.settings.data_dir.absolute() / "pacs", config, jobs.settings.read)
    shelf.prepare()
    returns = Returns(jobs.database, destinations_of(config), make_objects)
    with process_folder(jobs.store.incoming) as scratch:
        yield Pacs(
            config=config,
            shelf=shelf,
            handover=Handover(shelf, jobs.intake, make_order, scratch, jobs.settings.pacs_tenant),
            returns=returns,
            pollers=tuple(
                OrthancPoller(name, settings, jobs.database, shelf, scratch)
                for name, settings in config.orthanc.items()
            ),
            performers=tuple(
                Performer(
                    name,
                    UpsClient(settings),
                    InputDesk(jobs, settings, _web(config, settings.input), make_order, scratch),
                    jobs,
                    returns,
                    make_objects,
                    _web(config, settings.output).url,
                )
                for name, settings in config.worklist.items()
            ),
            scratch=scratch,
        )


@contextmanager
def pacs_running(pacs: Pacs) -> Iterator[int | None]:
    """Listen, poll, hand over and send until the context ends; gives the port of the listener, if there is one.

    Each target and each Orthanc has a thread of its own: one that does not answer holds up no other.

    Raises
    ------
    ListenerUnavailable
        The listener's address cannot be had.
    """
    ended = threading.Event()
    listeners = [CancelRequests(each) for each in pacs.performers if each.client.settings.events_url is not None]
    chores: list[tuple[str, Callable[[], object], float]] = [
        ("handover", pacs.handover.hand_over_due, _ROUND_S),
        ("tidy", pacs.shelf.tidy, _ROUND_S * _TIDY_EVERY),
        *((f"orthanc {poller.name}", poller.round, poller.settings.every_s) for poller in pacs.pollers),
        *((f"worklist {each.name}", each.search, each.client.settings.every_s) for each in pacs.performers),
        *((f"workitems {each.name}", each.go_on, _ROUND_S) for each in pacs.performers),
        *((f"events {each.performer.name}", each.round, _ROUND_S) for each in listeners),
        *((f"returns {name}", _sending(pacs, name), _ROUND_S) for name in pacs.config.targets),
    ]
    threads = [
        threading.Thread(target=_repeat, args=(ended, *chore), name=f"pacs-{chore[0]}", daemon=True) for chore in chores
    ]
    with ExitStack() as stack:
        port = None
        if pacs.config.dimse is not None:
            from app.pacs.listener import listening  # noqa: PLC0415

            port = stack.enter_context(listening(pacs.config.dimse, pacs.shelf, pacs.scratch))
        for thread in threads:
            thread.start()
        try:
            yield port
        finally:
            ended.set()
            deadline = time.monotonic() + _STOP_PATIENCE_S
            for thread in threads:
                # One that waits for a PACS is left: what it was doing is done again by whoever comes next.
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
            for listener in listeners:
                listener.close()


def _web(config: PacsConfig, name: str) -> WebTarget:
    target = config.targets[name]
    if not isinstance(target, WebTarget):  # the configuration has been checked
        raise TypeError(name)
    return target


def _sending(pacs: Pacs, target: str) -> Callable[[], object]:
    return lambda: pacs.returns.send_due(target)


def _repeat(ended: threading.Event, name: str, call: Callable[[], object], every_s: float) -> None:
    """A round that fails is told and made again."""
    told = ""
    while not ended.is_set():
        try:
            call()
            told = ""
        except Exception as error:  # noqa: BLE001 - a thread of its own: whatever a PACS answers, the next round comes
            code = error.code if isinstance(error, LungNoduleError) else type(error).__name__
            if code != told:  # once, not at every round for as long as a PACS is away
                structlog.get_logger(__name__).error("chore failed", chore=name, failure=described(error))
            told = code
        ended.wait(every_s)
