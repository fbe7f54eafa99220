"""Requests to cancel a workitem reach its performer as events (PS3.4 CC.2.4); here they are listened to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.pacs.event_channel import EventChannel
from app.pacs.worklist import Performer

_AFFECTED_SOP_INSTANCE_UID, _EVENT_TYPE_ID = "00001000", "00001002"
_CANCEL_REQUESTED = 2
_WAIT_S = 1.0


@dataclass
class CancelRequests:
    """Of one worklist, over a channel that is opened anew whenever it breaks.

    Parameters
    ----------
    performer
        Who gives up what is asked for. It subscribes to a workitem when it claims it.
    """

    performer: Performer
    _channel: EventChannel | None = field(default=None, repr=False)

    def round(self) -> None:
        """Wait a while for an event, and act on it.

        Raises
        ------
        PacsTroubleError
            The channel is broken; the next round opens another.
        """
        settings = self.performer.client.settings
        if settings.events_url is None:
            return
        if self._channel is None:
            self._channel = EventChannel(
                settings.events_url, settings.login, settings.timeout_s, allow_private=settings.allow_private
            )
        try:
            told = self._channel.receive(_WAIT_S)
        except BaseException:
            self.close()
            raise
        if told is not None and (uid := _to_be_cancelled(told)) is not None:
            structlog.get_logger(__name__).info("cancel requested", worklist=self.performer.name)
            self.performer.cancel(uid)

    def close(self) -> None:
        """Let the channel go."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _to_be_cancelled(told: str) -> str | None:
    """The workitem of an event that asks to cancel it; None for any other event, and for what is none."""
    try:
        event = json.loads(told)
    except (ValueError, RecursionError):
        return None
    event = event[0] if isinstance(event, list) and event else event
    if not isinstance(event, dict) or _first(event, _EVENT_TYPE_ID) != _CANCEL_REQUESTED:
        return None
    uid = _first(event, _AFFECTED_SOP_INSTANCE_UID)
    return uid if isinstance(uid, str) else None


def _first(event: dict[str, Any], tag: str) -> object:
    element = event.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
