"""What evaluation decides besides the weights, as one JSON file between `evaluate` and `export`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from app.inference.manifest import Metric, OperatingPointEntry
from training.served import Calibration


class Decisions(BaseModel):
    """Chosen on validation data; the metrics are measured on data that no choice was made on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodule: Calibration = Calibration()
    malignancy: Calibration = Calibration()
    mask_shift: float = 0.0
    score_threshold: float = 0.12
    detector_weight: float = 0.0
    halo_voxels: int = 64
    operating_points: dict[str, OperatingPointEntry] = Field(default_factory=dict)
    default_operating_point: str = ""
    metrics: tuple[Metric, ...] = ()


def write_decisions(path: Path, decisions: Decisions) -> None:
    """Indented JSON."""
    path.write_text(decisions.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_decisions(path: Path) -> Decisions:
    """Read what `write_decisions` wrote.

    Raises
    ------
    FileNotFoundError
        If the run has not been evaluated.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m training evaluate` with the same config first")
    return Decisions.model_validate_json(path.read_text(encoding="utf-8"))
