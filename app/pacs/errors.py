"""What can go wrong between a PACS and this service.

LungNoduleError
  PacsNotConfigured     nobody told this service of a PACS
  ListenerUnavailable   the address of the DIMSE provider cannot be listened on
  PacsTroubleError      the other side did not do what was asked; trying again may help
  InstanceRefused       a received object is not taken in; carries DICOM's failure reason
OptionError
  PacsConfigInvalid     the configuration file does not fit
"""

from __future__ import annotations

from enum import IntEnum

from app.imaging.errors import LungNoduleError, OptionError


class PacsConfigInvalid(OptionError):
    """The configuration file is missing or does not fit; names the key, never a secret."""

    default_code = "pacs_config_invalid"


class PacsNotConfigured(LungNoduleError):
    """The service was started without LUNGNODULE_PACS_CONFIG."""

    default_code = "pacs_not_configured"


class PacsTroubleError(LungNoduleError):
    """The other side does not answer, refuses, or answers what makes no sense."""

    default_code = "pacs_trouble"


class ListenerUnavailable(LungNoduleError):
    """The address of the DIMSE provider cannot be listened on, mostly because somebody else does."""

    default_code = "cannot_listen_dimse"


class FailureReason(IntEnum):
    """Failure Reason (0008,1197), of PS3.18 10.5.3 and PS3.4 B.2.3."""

    SOP_CLASS_NOT_SUPPORTED = 0x0122
    DOES_NOT_MATCH = 0xA900
    OUT_OF_RESOURCES = 0xA700
    CANNOT_UNDERSTAND = 0xC000
    TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122


class InstanceRefused(LungNoduleError):
    """A received object is not taken in.

    Parameters
    ----------
    reason
        What the sender is told.
    message, code
        As for every error.
    """

    default_code = "instance_refused"

    def __init__(self, reason: FailureReason, message: str, *, code: str) -> None:
        super().__init__(message, code=code, values={"failure_reason": f"{reason.value:04X}"})
        self.reason = reason
