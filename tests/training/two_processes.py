"""One process of a run that the tests start with torchrun: `two_processes.py CONFIG OUT [KILL_AT]`.

Trains the detector to its end and writes its weights to OUT/rank<r>.pt; with KILL_AT the first process kills itself
before that step.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from training import train_detector
from training.config import load_config
from training.processes import Placement
from training.train import train

train_detector.SAVE_EVERY = 2
torch.set_num_threads(1)
config, out = load_config(Path(sys.argv[1])), Path(sys.argv[2])
kill_at = int(sys.argv[3]) if len(sys.argv) > 3 else None
drawn = []
generator = Placement.generator


def watched(self, seed: int, step: int) -> np.random.Generator:
    if step == kill_at and self.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    drawn.append([step, float(generator(self, seed, step).random())])
    return generator(self, seed, step)


Placement.generator = watched  # type: ignore[method-assign]
_, detector = train(config, stage="detector")
out.mkdir(parents=True, exist_ok=True)
torch.save({"weights": detector.state_dict(), "drawn": drawn}, out / f"rank{os.environ['RANK']}.pt")
