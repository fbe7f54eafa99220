"""DICOMweb as a client: QIDO-RS, WADO-RS and STOW-RS of the PACS that the configuration names, every answer checked."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from app.pacs.config import WebTarget
from app.pacs.errors import PacsTroubleError
from app.pacs.returns import STORED
from app.pacs.web_session import WebSession, web_trouble_told


@dataclass(frozen=True)
class WebDestination:
    """A `Destination` that is reached by DICOMweb.

    Parameters
    ----------
    target
        From the configuration.
    """

    target: WebTarget

    def check(self) -> str:
        """QIDO-RS for one study.

        Raises
        ------
        PacsTroubleError
            No answer, or none that makes sense.
        """
        with self._client() as client:
            found = client.search_for_studies(limit=1)
        return f"QIDO-RS answers with {len(found)} of at most 1 studies"

    def series_of(self, study_uid: str) -> list[dict[str, Any]]:
        """QIDO-RS for the series of a study, as DICOM JSON.

        Raises
        ------
        PacsTroubleError
            As `check`.
        """
        with self._client() as client:
            return list(client.search_for_series(study_instance_uid=study_uid))

    def instances_of(self, study_uid: str, series_uid: str) -> list[Dataset]:
        """WADO-RS for a whole series, into memory: for results, not for scans.

        Raises
        ------
        PacsTroubleError, AnswerTooLarge
            No answer, or a larger one than the target's ``max_answer_bytes``.
        """
        with self._client() as client:
            return list(client.retrieve_series(study_uid, series_uid))

    def send(self, objects: Sequence[Dataset]) -> dict[str, str]:
        """STOW-RS; what the answer does not list as stored is not stored, whatever its status.

        Raises
        ------
        PacsTroubleError
            No answer to any of it.
        """
        answers: dict[str, str] = {}
        for one in objects:
            try:
                answers |= self._store(one)
            except PacsTroubleError as trouble:
                if not answers:
                    raise
                answers[str(one.SOPInstanceUID)] = trouble.code
                break
        return {str(one.SOPInstanceUID): answers.get(str(one.SOPInstanceUID), "not_sent") for one in objects}

    def _store(self, one: Dataset) -> dict[str, str]:
        """One object to a request: a server that refuses one of several may refuse all of them."""
        with self._client() as client:
            try:
                told = client.store_instances([_with_preamble(one)])
            except requests.HTTPError as error:
                if error.response is None or error.response.status_code != 409:
                    raise
                return {str(one.SOPInstanceUID): "refused_409"}
        return _confirmed(one, told)

    @contextmanager
    def _client(self) -> Iterator[DICOMwebClient]:
        target = self.target
        session = WebSession(
            target.login, target.timeout_s, target.max_answer_bytes, allow_private=target.allow_private
        )
        with web_trouble_told(), session:
            client = DICOMwebClient(url=target.url.rstrip("/"), session=session)
            client.set_http_retry_params(retry=False)
            yield client


def _with_preamble(one: Dataset) -> Dataset:
    """dicomweb-client writes what it is given as it is; without this there would be neither preamble nor prefix."""
    whole = copy.copy(one)
    whole.preamble = bytes(128)
    return whole


def _confirmed(sent: Dataset, told: Dataset) -> dict[str, str]:
    uid = str(sent.SOPInstanceUID)
    for item in told.get("FailedSOPSequence") or []:
        if str(item.get("ReferencedSOPInstanceUID", "")) == uid:
            return {uid: f"refused_{int(item.get('FailureReason', 0)):04X}"}
    stored = {str(item.get("ReferencedSOPInstanceUID", "")) for item in told.get("ReferencedSOPSequence") or []}
    return {uid: STORED if uid in stored else "not_confirmed"}
