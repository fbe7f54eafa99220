"""One real answer, as the OpenAPI description shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent / "static" / "example_result.json"


def example_result() -> dict[str, Any]:
    """What the service said to LIDC-IDRI-0001 with the operating point `specific`; a test holds it to the schema."""
    answer: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return answer
