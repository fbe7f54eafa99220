"""The evaluation as one HTML file that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app.inference.manifest import Metric
from training.config import TrainingConfig
from training.evaluation_result import Evaluation


def write_evaluation_report(
    path: Path, config: TrainingConfig, evaluation: Evaluation, metrics: Sequence[Metric]
) -> None:
    """Write the report."""
    raise NotImplementedError
