"""What `training.evaluate` measured, by fold: the metrics and the report are made from it alone."""

from __future__ import annotations

from dataclasses import dataclass

from training.characteriser_evaluation import JudgedNodules, JudgedPatches
from training.decisions import Decisions
from training.lung_evaluation import LungTrials


@dataclass(frozen=True)
class Evaluation:
    """Dictionaries are by fold.

    Parameters
    ----------
    fold
        The fold whose networks are to ship.
    """

    fold: int
    decisions: dict[int, Decisions]
    patches: dict[int, JudgedPatches]
    nodules: dict[int, JudgedNodules]
    lungs: dict[int, LungTrials]
