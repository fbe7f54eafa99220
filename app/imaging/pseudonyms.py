"""Other UIDs, other names and moved dates: the same for the same original, and not to be guessed without the key."""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

KEY_FILE = "deidentification.key"
_KEY_BYTES = 32
_REGISTERED = "1.2.840.10008."
"""UIDs that DICOM itself defines name no patient."""
_MOST_DAYS = 3650


@dataclass(frozen=True)
class Pseudonyms:
    """Keyed by HMAC-SHA256 (RFC 2104).

    Parameters
    ----------
    key
        Whoever has it can tell whether a UID that he knows is behind a replaced one.
    """

    key: bytes = field(repr=False)

    def uid(self, original: str) -> str:
        """A UID under 2.25 with the figure of a UUID of version 8 (PS3.5 B.2); DICOM's own UIDs stay."""
        if original.startswith(_REGISTERED):
            return original
        number = int.from_bytes(self._digest("uid", original)[:16], "big")
        return f"2.25.{number & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)}"

    def label(self, kind: str, original: str) -> str:
        """16 hexadecimal digits for a name or number of this kind."""
        return self._digest(kind, original)[:8].hex().upper()

    def days_back(self, patient: str) -> int:
        """By how many days all dates of a patient are moved: from one day to ten years."""
        return 1 + int.from_bytes(self._digest("days", patient)[:8], "big") % _MOST_DAYS

    def _digest(self, kind: str, original: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\x1f{original}".encode("utf-8", "surrogateescape"), "sha256")


def pseudonyms_in(folder: Path) -> Pseudonyms:
    """Those of the key in a folder; the key is made, readable by its owner only, where there is none.

    Raises
    ------
    OSError
        The folder cannot be written, or the key not be read.
    """
    path = folder / KEY_FILE
    with suppress(FileNotFoundError):
        return Pseudonyms(_checked(path))
    descriptor, made = tempfile.mkstemp(dir=folder, prefix=".key-")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):  # another process was faster; its key counts
            os.link(made, path)
    finally:
        Path(made).unlink()
    return Pseudonyms(_checked(path))


def _checked(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise OSError(f"{path.name} in the data folder is damaged: {len(key)} bytes, {_KEY_BYTES} are expected.")
    return key
