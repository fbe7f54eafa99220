"""Chest CT phantoms with known nodules, and writers for the formats that the service reads.

Synthetic only: nothing here is, or is derived from, a patient.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.phantom.files import write_phantom

__all__ = ["write_phantom"]


def __getattr__(name: str) -> object:
    """Load `write_phantom` when it is asked for: loading a model must not import every DICOM encoder."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("app.phantom.files"), name)
