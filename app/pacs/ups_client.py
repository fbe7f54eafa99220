"""UPS-RS as a performer (PS3.18 11, PS3.4 CC.2): search, claim, update and end workitems of one server.

A server refuses what its state machine does not allow with 409 and a Warning; that is an answer here, not an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID

from app.imaging.dicom_headers import PARSE_FAULTS, pydicom_silenced
from app.pacs.config import Worklist
from app.pacs.errors import PacsTroubleError
from app.pacs.web_session import WebSession, web_trouble_told

JSON = "application/dicom+json"
SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
_MAX_ANSWER_BYTES = 16 << 20
_PAGE = 50


@dataclass(frozen=True)
class Answer:
    """What a server says to a change."""

    status: int

    @property
    def is_done(self) -> bool:
        """Done as asked, perhaps with a warning."""
        return 200 <= self.status < 300

    @property
    def is_conflict(self) -> bool:
        """Not in this state, or not with this transaction."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """There is no such workitem, or no longer."""
        return self.status in (404, 410)


@dataclass(frozen=True)
class UpsClient:
    """One worklist.

    Parameters
    ----------
    settings
        From the configuration. Every method may raise `PacsTroubleError`.
    """

    settings: Worklist

    def scheduled(self) -> list[str]:
        """SOPInstanceUIDs of workitems that wait, whose input is ready, and that are meant for us; a page of them."""
        asked = {"00741000": SCHEDULED, "00404041": "READY", "limit": str(_PAGE)}
        if self.settings.station is not None:
            asked["00404025.00080100"] = self.settings.station
        if self.settings.workitem_code is not None:
            asked["00404018.00080100"] = self.settings.workitem_code
        status, body = self._request("GET", "", parameters=asked)
        if status == 204:
            return []
        if status != 200:
            raise _refused(status)
        found = [_dataset(each) for each in _list(body)]
        return [
            str(one.SOPInstanceUID)
            for one in found
            if is_uid(str(one.get("SOPInstanceUID", ""))) and self._is_meant(one)
        ]

    def workitem(self, uid: str) -> Dataset | None:
        """A workitem whole; None where there is none."""
        status, body = self._request("GET", f"/{uid}")
        if status in (404, 410):
            return None
        if status != 200:
            raise _refused(status)
        (told,) = _list(body)[:1] or [{}]
        return _dataset(told)

    def change_state(self, uid: str, state: str, transaction_uid: str) -> Answer:
        """Take it, or end it."""
        told = Dataset()
        told.TransactionUID = transaction_uid
        told.ProcedureStepState = state
        return self._changed("PUT", f"/{uid}/state", told)

    def update(self, uid: str, changes: Dataset, transaction_uid: str) -> Answer:
        """Tell of progress or of what was performed, of a workitem that is ours."""
        return self._changed("POST", f"/{uid}", changes, {"transaction-uid": transaction_uid})

    def subscribe(self, uid: str) -> Answer:
        """Ask for the events of a workitem."""
        return self._changed("POST", f"/{uid}/subscribers/{quote(self.settings.subscriber)}")

    def check(self) -> str:
        """Ask whether the server is there; gives what it said."""
        return f"UPS-RS answers with {len(self.scheduled())} scheduled workitems for us"

    def _is_meant(self, one: Dataset) -> bool:
        """Servers may ignore what they are asked for: what comes back is looked at again."""
        wanted = (
            ("ScheduledStationNameCodeSequence", self.settings.station),
            ("ScheduledWorkitemCodeSequence", self.settings.workitem_code),
        )
        state = one.get("ProcedureStepState")
        return state in (None, SCHEDULED) and all(
            value is None or value in {str(code.get("CodeValue")) for code in items_of(one, keyword)}
            for keyword, value in wanted
        )

    def _changed(
        self, method: str, path: str, told: Dataset | None = None, parameters: Mapping[str, str] | None = None
    ) -> Answer:
        status, _ = self._request(method, path, told, parameters)
        answer = Answer(status)
        if not (answer.is_done or answer.is_conflict or answer.is_gone):
            raise _refused(status)
        return answer

    def _request(
        self, method: str, path: str, told: Dataset | None = None, parameters: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        settings = self.settings
        url = f"{settings.url.rstrip('/')}/workitems{path}"
        headers = {"Accept": JSON} | ({"Content-Type": JSON} if told is not None else {})
        body = None if told is None else json.dumps([told.to_json_dict()]).encode()
        opened = WebSession(settings.login, settings.timeout_s, _MAX_ANSWER_BYTES, allow_private=settings.allow_private)
        with web_trouble_told(), opened as session:
            answer = session.request(method, url, params=parameters, data=body, headers=headers)
            return answer.status_code, answer.content


def items_of(one: Dataset, keyword: str) -> Sequence[Dataset]:
    """Items of a sequence; none where there is none, or where a server gave it another type."""
    found = one.get(keyword)
    return found if isinstance(found, DicomSequence) else ()


def _list(body: bytes) -> Sequence[Mapping[str, Any]]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    told = [told] if isinstance(told, dict) else told
    if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
        raise PacsTroubleError("The worklist answers something else than DICOM JSON.", code="pacs_answer_invalid")
    return told


def _dataset(told: Mapping[str, Any]) -> Dataset:
    read = None
    # Told apart from its cause, whose text may quote a value.
    with pydicom_silenced(), suppress(*PARSE_FAULTS):
        read = Dataset.from_json(dict(told))
    if read is None:
        raise PacsTroubleError("The worklist answers DICOM JSON that is none.", code="pacs_answer_invalid")
    return read


def is_uid(text: str) -> bool:
    """Whether it may be a UID, without pydicom's warning, which quotes what a server sent."""
    return UID(text, validation_mode=config.IGNORE).is_valid


def _refused(status: int) -> PacsTroubleError:
    return PacsTroubleError(f"The worklist answers {status}.", code=f"pacs_http_{status}", values={"status": status})
