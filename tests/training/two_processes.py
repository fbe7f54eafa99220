"""One process of a run that the tests start with torchrun: `two_processes.py CONFIG OUT [die]`.

Trains the detector into OUT/killed, where with `die` the first process kills itself before step 3, and into OUT/whole.
What comes out is in OUT/rank<r>.pt: the weights and what this process drew for each step.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from training import train_detector
from training.config import load_config
from training.luna16_run import train_luna16
from training.processes import Placement, joined

train_detector.SAVE_EVERY = 2
torch.set_num_threads(1)
config, out = load_config(Path(sys.argv[1])), Path(sys.argv[2])
generator = Placement.generator
drawn: list[list[float]] = []


def watched(self: Placement, seed: int, step: int) -> np.random.Generator:
    """The generator of the step, noted by its first number."""
    if step == 3 and self.rank == 0 and "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    drawn.append([step, float(generator(self, seed, step).random())])
    return generator(self, seed, step)


Placement.generator = watched  # type: ignore[method-assign]
ended = {}
with joined(config) as where:
    for name in ("killed", "whole"):
        drawn.clear()
        _, detector = train_luna16(config, out / name, where, stage="detector", fold=0)
        ended[name] = {"weights": detector.state_dict(), "drawn": [tuple(each) for each in drawn]}
torch.save(ended, out / f"rank{where.rank}.pt")
