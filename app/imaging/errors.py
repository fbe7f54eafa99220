"""Every way a scan can be refused, as a tree drawn in one place.

    LungNoduleError
      ScanError                 the caller's scan cannot be used
        UploadTooLarge          over a stated limit (files, bytes, pixels, ratio)
        UnsupportedFormat       a container, transfer syntax or file type we do not read
        UnreadableScan          damaged: truncated, undecodable, headers that contradict the data
        SeriesSelectionError    several series fit, none fits, or the one named is absent
        NotChestCt              understood, but not a chest CT this service may analyse
        IrregularSeries         slices that do not form one regular volume
        PriorMismatch           a prior that the scan must not be compared with
        NotDeidentified         cannot be stored without its patient, where that is asked for
      ModelError                a model folder or network cannot be used
      OptionError               an option of the request names something that is not there

An error carries a machine-readable ``code`` and ``values`` (numbers, DICOM attribute names, UIDs): what the
caller needs to act on. It never carries a patient attribute, a file name from the upload or a raw tag value
of a text VR.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# JSON-serialisable; spelled out it would be a recursive alias that python 3.11 cannot write.
Value = Any


class LungNoduleError(Exception):
    """Base of all errors that a caller can act on.

    Parameters
    ----------
    message
        One or two sentences: what is wrong, the attribute and the values, and what to do.
    code
        Stable snake_case identifier; part of the public API. Defaults to the class's own.
    values
        The figures behind the message, JSON-serialisable.
    """

    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None, values: Mapping[str, Value] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.values: dict[str, Value] = dict(values or {})


class ScanError(LungNoduleError):
    """The scan that was sent cannot be used."""

    default_code = "unusable_scan"


class UploadTooLarge(ScanError):
    """Over a limit that `/v1/capabilities` states."""

    default_code = "too_large"


class UnsupportedFormat(ScanError):
    """A container, transfer syntax or file type that is not read."""

    default_code = "unsupported_format"


class UnreadableScan(ScanError):
    """Damaged or self-contradicting data."""

    default_code = "unreadable_scan"


class SeriesSelectionError(ScanError):
    """No series, or more than one, answers the request."""

    default_code = "series_selection"


class NotChestCt(ScanError):
    """A readable image that is not a chest CT fit for nodule detection."""

    default_code = "unsupported_series"


class IrregularSeries(ScanError):
    """Slices that do not form one regular volume."""

    default_code = "irregular_series"


class PriorMismatch(ScanError):
    """A prior scan that does not belong to the current one."""

    default_code = "prior_mismatch"


class NotDeidentified(ScanError):
    """Images that cannot be de-identified, where only de-identified ones may be kept."""

    default_code = "not_deidentified"


class ModelError(LungNoduleError):
    """A model folder is missing, damaged or not what its manifest says."""

    default_code = "model_invalid"


class NoCharacteriser(ModelError):
    """A model that has a detector only is asked for what its second stage would tell."""

    default_code = "no_characteriser"


class OptionError(LungNoduleError):
    """An option of the request names something that the model or the service does not have."""

    default_code = "unknown_option"
