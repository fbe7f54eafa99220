"""DIMSE as a user: C-ECHO and C-STORE to the PACS that the configuration names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from app.outbound import judged_addresses
from app.pacs.config import DimseTarget
from app.pacs.entity import Entity
from app.pacs.errors import PacsTroubleError
from app.pacs.returns import STORED

_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_WARNINGS = (0xB000, 0xB006, 0xB007)
"""Stored, with something coerced, discarded, or not as its class says (PS3.4 B.2.3)."""


@dataclass(frozen=True)
class DimseDestination:
    """A `Destination` that is reached by DIMSE.

    Parameters
    ----------
    target
        From the configuration.
    """

    target: DimseTarget

    def check(self) -> str:
        """C-ECHO.

        Raises
        ------
        PacsTroubleError
            No association, or no success.
        """
        with self._associated([Verification]) as association:
            status = association.send_c_echo()
            if status.get("Status") != 0:
                raise PacsTroubleError("The PACS does not answer C-ECHO with success.", code="echo_failed")
        return "C-ECHO answered"

    def send(self, objects: Sequence[Dataset]) -> dict[str, str]:
        """C-STORE of each object, in one association.

        Raises
        ------
        PacsTroubleError
            No association.
        """
        classes = sorted({str(one.SOPClassUID) for one in objects})
        with self._associated(classes) as association:
            return {str(one.SOPInstanceUID): _stored(association, one) for one in objects}

    @contextmanager
    def _associated(self, sop_classes: Sequence[str]) -> Iterator[Association]:
        target = self.target
        entity = Entity(target.calling_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = target.timeout_s
        entity.connection_timeout = target.timeout_s
        for sop_class in sop_classes:
            entity.add_requested_context(sop_class, _SYNTAXES)
        for address in _judged(target):  # not the name: it could lead elsewhere when it is resolved anew
            association = entity.associate(address, target.port, ae_title=target.ae_title)
            if association.is_established or association.is_rejected:
                break
        if not association.is_established:
            rejected = association.is_rejected
            raise PacsTroubleError(
                "The PACS rejects the association: it may not know our AE title."
                if rejected
                else "The PACS does not answer.",
                code="association_rejected" if rejected else "pacs_unreachable",
            )
        try:
            yield association
        finally:
            association.release()


def _judged(target: DimseTarget) -> list[str]:
    try:
        found = judged_addresses(target.host, target.port, allow_private=target.allow_private)
        return [address for _, address in found]
    except OSError as error:
        raise PacsTroubleError(f"The PACS does not answer ({type(error).__name__}).", code="pacs_unreachable") from None


def _stored(association: Association, one: Dataset) -> str:
    if not association.is_established:
        return "association_lost"
    if not any(context.abstract_syntax == one.SOPClassUID for context in association.accepted_contexts):
        return "sop_class_not_accepted"
    status = association.send_c_store(one)
    if "Status" not in status:
        return "association_lost"
    code = int(status.Status)
    return STORED if code == 0 or code in _WARNINGS else f"refused_{code:04X}"
