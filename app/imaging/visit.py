"""Whose scan it is and of which day: held so that two scans can be compared, and never told.

A date and an identifier are the patient's. What may leave this object is how many days lie between two scans, and
whether two identifiers are the same.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import date

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
"""DA as PS3.5 has it, or with the dots of ACR-NEMA; a DT begins with the same."""
_EARLIEST_YEAR = 1970


@dataclass(frozen=True)
class Visit:
    """One patient on one day.

    Parameters
    ----------
    patient
        Digest of PatientID as it is encoded; None where the attribute is absent or empty.
    day
        Of the acquisition, else of the study; None where neither is a date.
    """

    patient: str | None = field(default=None, repr=False)
    day: date | None = field(default=None, repr=False)

    def days_since(self, earlier: Visit) -> int | None:
        """Days from an earlier visit to this one, negative when it was later; None where a date is missing."""
        if self.day is None or earlier.day is None:
            return None
        return (self.day - earlier.day).days

    def is_same_patient(self, other: Visit) -> bool | None:
        """Whether both have the same PatientID; None where one has none."""
        if self.patient is None or other.patient is None:
            return None
        return self.patient == other.patient


def patient_digest(encoded: bytes | None) -> str | None:
    """Digest of an encoded PatientID without its padding; None for one that is absent or blank."""
    significant = (encoded or b"").strip(b" \0")
    return hashlib.sha256(significant).hexdigest() if significant else None


def day_of(*dates: str | None) -> date | None:
    """The first that begins with a date, as DICOM writes DA and DT; None where none does."""
    for text in dates:
        found = _DATE.match(text or "")
        if found is None or int(found[1]) < _EARLIEST_YEAR:
            continue
        try:
            return date(int(found[1]), int(found[2]), int(found[3]))
        except ValueError:
            continue
    return None
