"""One received instance, before it is put on the shelf: as it came, or without its patient."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from app.imaging.deidentification import Retained, deidentify
from app.imaging.errors import ScanError
from app.imaging.inputs import ScanFile
from app.imaging.pseudonyms import Pseudonyms
from app.imaging.read_options import ReadLimits
from app.pacs.errors import FailureReason, InstanceRefused
from app.pacs.instances import Instance, read_instance


@dataclass(frozen=True)
class Received:
    """One instance in a file of ours, which `Shelf.put` moves."""

    path: Path
    instance: Instance
    """As it was sent."""
    stored: Instance
    """As it lies in the file: with other UIDs where it was de-identified."""
    identity: bytes | None = field(default=None, repr=False)
    """Whose it was, where it was de-identified."""


def without_patient(
    path: Path, instance: Instance, pseudonyms: Pseudonyms, retained: Retained, limits: ReadLimits
) -> Received:
    """De-identify a file where it lies; what is in it afterwards tells nothing of the patient.

    Raises
    ------
    InstanceRefused
        It cannot be: its file is the caller's to remove.
    """
    scratch = Path(tempfile.mkdtemp(dir=path.parent))
    refusal: ScanError | None = None
    try:
        target = scratch / "deidentified"
        file = ScanFile(0, path.name, path, 0, path.stat().st_size)
        identity = deidentify(file, target, scratch, limits, pseudonyms, retained)
        target.replace(path)
        return Received(path, instance, read_instance(path), identity.to_bytes())
    except ScanError as error:
        refusal = error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    raise InstanceRefused(FailureReason.CANNOT_UNDERSTAND, refusal.message, code=refusal.code)
