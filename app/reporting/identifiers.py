"""UIDs of derived objects: the same findings give the same ones, so that storing twice is storing once."""

from __future__ import annotations

import hashlib

from app.inference.findings import Findings, Nodule


def derived_uid(*parts: str) -> str:
    """A UID under the root 2.25 whose figure is that of a UUID of version 8 (PS3.5 B.2), from the hash of its parts."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    number = int.from_bytes(digest[:16], "big") & ~(0xF << 76) & ~(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
    return f"2.25.{number}"


def tracking_uid(findings: Findings, nodule: Nodule) -> str:
    """Follows one nodule through all objects; the same again when the same model finds it at the same place."""
    series = findings.identity.series_instance_uid if findings.identity else ""
    place = ",".join(f"{value:.1f}" for value in nodule.center_lps_mm)
    return derived_uid("nodule", series, findings.model.sha256, place)
