"""Whose images they were: what was taken out of them, kept apart, so that results find their way back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset

from app.imaging.dicom_headers import PARSE_FAULTS, pydicom_silenced
from app.imaging.original_headers import PATIENT_AND_STUDY

_VERSION = 1
_RESTORED = (*PATIENT_AND_STUDY, "PositionReferenceIndicator")
"""Results repeat these of their images; the last so that all of a frame of reference say the same of it."""


@dataclass(frozen=True)
class Identity:
    """What de-identified images were before; not in its repr, so in no log.

    Parameters
    ----------
    uids
        Replaced UID to original UID.
    header
        Attributes of patient and study as DICOM JSON (PS3.18 F).
    """

    uids: Mapping[str, str] = field(repr=False)
    header: Mapping[str, Any] = field(repr=False)

    def uid(self, replaced: str) -> str:
        """The original of a UID; one that was not replaced is given back."""
        return self.uids.get(replaced, replaced)

    def restored(self, header: Dataset) -> Dataset:
        """A header as it was before, as far as results repeat it: patient, study, and every UID."""
        whole = Dataset()
        with pydicom_silenced():
            whole.update(header)
            for keyword in _RESTORED:
                if keyword in whole:
                    del whole[keyword]
            whole.update(Dataset.from_json(dict(self.header)))
            self._restore_uids(whole)
        return whole

    def _restore_uids(self, dataset: Dataset) -> None:
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value:
                    self._restore_uids(item)
            elif element.VR == "UI" and element.value:
                several = element.VM > 1
                found = [self.uid(str(value)) for value in (element.value if several else [element.value])]
                element.value = found if several else found[0]

    def to_bytes(self) -> bytes:
        """As it is kept."""
        return json.dumps({"version": _VERSION, "uids": dict(self.uids), "header": dict(self.header)}).encode()

    @classmethod
    def from_bytes(cls, kept: bytes) -> Identity:
        """The reverse of `to_bytes`."""
        told = json.loads(kept)
        return cls(told["uids"], told["header"])


def merged(identities: Iterable[Identity]) -> Identity:
    """Of a whole series: all UIDs, patient and study as the first image has them."""
    each = list(identities)
    return Identity({replaced: uid for one in each for replaced, uid in one.uids.items()}, each[0].header)


def header_to_restore(header: Dataset) -> dict[str, Any]:
    """Patient and study of a header as DICOM JSON; what cannot be read is left out."""
    found: dict[str, Any] = {}
    for keyword in _RESTORED:
        if keyword not in header:
            continue
        one = Dataset()
        try:
            one.add(header[keyword])
            # Written and read once here, so that restoring cannot fail later.
            told = json.loads(json.dumps(one.to_json_dict()))
            Dataset.from_json(told)
        except PARSE_FAULTS:
            continue
        found |= told
    return found
