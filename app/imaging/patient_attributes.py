"""Age and sex as the headers of a CT say, for risk formulas; `app.imaging.visit` reads whose scan it is and of when.

They are shown to nobody unless the clinical context of the request asks for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

_AGE = re.compile(r"(\d{3})([DWMY])")
_UNITS_A_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}


@dataclass(frozen=True)
class PatientAttributes:
    """What formulas use of a patient; not in its repr, so in no log."""

    age_years: float | None = field(default=None, repr=False)
    sex: Literal["female", "male"] | None = field(default=None, repr=False)


def patient_attributes(age: str | None, sex: str | None) -> PatientAttributes:
    """From PatientAge (nnnD, nnnW, nnnM or nnnY, PS3.5) and PatientSex (M or F); anything else is not known."""
    parts = _AGE.fullmatch(age or "")
    years = int(parts[1]) / _UNITS_A_YEAR[parts[2]] if parts else None
    return PatientAttributes(
        None if years is None or years > 120 else round(years, 2),
        {"F": "female", "M": "male"}.get(sex or ""),  # type: ignore[arg-type]
    )
