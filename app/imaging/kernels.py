"""What the names of reconstruction kernels say; vendors each have their own."""

from __future__ import annotations

import re

_SHARP_NAMES = frozenset({"LUNG", "BONE", "BONEPLUS", "EDGE", "ULTRA", "YA", "YB", "YC", "L"})
_SIEMENS_KERNEL = re.compile(r"[BIHUTD][RLVUFP]?(\d{2})", re.IGNORECASE)
_CANON_KERNEL = re.compile(r"FC(\d{2})")
_SOFT_NAMES = frozenset({"STANDARD", "SOFT", "DETAIL", "CHEST", "A", "B", "C"})


def is_sharp_kernel(kernel: str | None) -> bool | None:
    """Whether a reconstruction kernel is an edge-enhancing one; None when its name is not known."""
    if kernel is None:
        return None
    name = kernel.upper().split("/")[0].strip()
    if name in _SHARP_NAMES:
        return True
    if found := _SIEMENS_KERNEL.match(name):
        return int(found[1]) >= 60
    if found := _CANON_KERNEL.match(name):
        return int(found[1]) in range(30, 40) or int(found[1]) >= 50
    return False if name in _SOFT_NAMES else None
