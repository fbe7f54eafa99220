"""The characteriser as it is served: mirrored views averaged and probabilities calibrated, all inside the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.characteriser import Characteriser, CharacteriserOutput


@dataclass(frozen=True)
class Calibration:
    """Probability = sigmoid(slope * logit + intercept), fitted on validation patients."""

    slope: float = 1.0
    intercept: float = 0.0


class ServedCharacteriser(nn.Module):
    """Crops to probabilities; the outputs are those that `app.inference.manifest` names, in its order.

    Left-right mirror images are as real as the originals, so both are asked and their logits averaged.
    """

    def __init__(
        self, network: Characteriser, nodule: Calibration, malignancy: Calibration, mask_shift: float = 0.0
    ) -> None:
        super().__init__()
        self.network = network
        self.nodule = nodule
        self.malignancy = malignancy
        self.mask_shift = mask_shift

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops (n, s, rows, columns) -> nodule (n,), malignancy (n,), attributes (n, a), mask like the crops."""
        logits = self.logits(crops)
        return (
            torch.sigmoid(logits.nodule * self.nodule.slope + self.nodule.intercept),
            torch.sigmoid(logits.malignancy * self.malignancy.slope + self.malignancy.intercept),
            torch.sigmoid(logits.attributes),
            torch.sigmoid(logits.mask + self.mask_shift),
        )

    def logits(self, crops: Tensor) -> CharacteriserOutput:
        """Mean of the two views, uncalibrated; the mirrored mask is mirrored back about the candidate."""
        plain = self.network(crops)
        # the candidate sits at index size/2, so a mirror about it moves the first column out of the crop
        mirrored = self.network(mirrored_about_candidate(crops))
        return CharacteriserOutput(
            (plain.nodule + mirrored.nodule) / 2,
            (plain.malignancy + mirrored.malignancy) / 2,
            (plain.attributes + mirrored.attributes) / 2,
            (plain.mask + mirrored_about_candidate(mirrored.mask)) / 2,
        )


def mirrored_about_candidate(x: Tensor) -> Tensor:
    """Flip the columns so that index size/2 stays; column 0, which has no partner, stays too."""
    return torch.cat([x[..., :1], x[..., 1:].flip(-1)], dim=-1)
