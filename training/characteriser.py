"""The second stage: a CNN that reads axial slices through a candidate and pools over them.

One encoder sees each slice by itself, so a single real slice (LUNA16's candidate patches) and a stack of them
(LIDC's nodules) teach the same weights. Four heads stand on it: nodule against non-nodule, malignancy, the readers'
characteristics, and a mask for each slice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    """The default activation; `compare_activations` says how the others did."""
    return nn.ReLU(inplace=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            activation(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, rows, columns); rows and columns shrink by the stride."""
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


class MergeBlock(nn.Module):
    """One step of the mask decoder: upsample, join the finer features, convolve."""

    def __init__(self, coarse: int, fine: int, outputs: int, activation: Activation) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(coarse + fine, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), activation()
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Features at a stride and at half of it, both (n, c, rows, columns)."""
        wide = nn.functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        out: Tensor = self.body(torch.cat([wide, fine], dim=1))
        return out


@dataclass(frozen=True)
class CharacteriserOutput:
    """Logits; leading axes (n,), (n,), (n, a), (n, s, rows, columns)."""

    nodule: Tensor
    malignancy: Tensor
    attributes: Tensor
    mask: Tensor


class Characteriser(nn.Module):
    """Axial slices in, logits out.

    Parameters
    ----------
    widths
        Channels at strides 2, 4 and 8; pixels are folded into channels first, so nothing runs at stride 1.
    attributes
        Number of readers' characteristics, each scaled to 0..1.
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (32, 64, 128),
        attributes: int = 5,
        dropout: float = 0.3,
        activation: Activation = relu,
    ) -> None:
        super().__init__()
        w2, w4, w8 = widths
        self.stem = nn.Sequential(nn.Conv2d(8, w2, 3, 1, 1, bias=False), nn.BatchNorm2d(w2), activation())
        self.stage2 = nn.Sequential(ResidualBlock(w2, w2, 1, activation), ResidualBlock(w2, w2, 1, activation))
        self.stage4 = nn.Sequential(ResidualBlock(w2, w4, 2, activation), ResidualBlock(w4, w4, 1, activation))
        self.stage8 = nn.Sequential(ResidualBlock(w4, w8, 2, activation), ResidualBlock(w8, w8, 1, activation))
        self.merge4 = MergeBlock(w8, w4, w4, activation)
        self.merge2 = MergeBlock(w4, w2, w2, activation)
        self.mask_head = nn.Conv2d(w2, 4, 3, 1, 1)
        features = 2 * w8 + w4
        self.nodule_head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features, 64), activation(), nn.Dropout(dropout), nn.Linear(64, 1)
        )
        self.malignancy_head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * features, 64), activation(), nn.Dropout(dropout), nn.Linear(64, 1)
        )
        self.attribute_head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(2 * features, 64), activation(), nn.Linear(64, attributes)
        )

    def forward(self, crops: Tensor) -> CharacteriserOutput:
        """Float (n, s, rows, columns) in network units, any n and s; rows and columns a multiple of 8."""
        n, s, rows, columns = crops.shape
        fine2, fine8, merged4 = self._encode(crops)
        mask = nn.functional.pixel_shuffle(self.mask_head(self.merge2(merged4, fine2)), 2)
        features = self._pool(fine8, merged4)
        nodule = self.nodule_head(features).reshape(n, s).mean(dim=1)
        by_slice = features.reshape(n, s, -1)
        whole = torch.cat([by_slice.mean(dim=1), by_slice.amax(dim=1)], dim=1)
        return CharacteriserOutput(
            nodule,
            self.malignancy_head(whole).reshape(n),
            self.attribute_head(whole),
            mask.reshape(n, s, rows, columns),
        )

    def nodule_logit(self, crops: Tensor) -> Tensor:
        """(n, s, rows, columns) -> (n,): the first head alone, without the cost of the mask."""
        n, s = crops.shape[:2]
        _, fine8, merged4 = self._encode(crops)
        logit: Tensor = self.nodule_head(self._pool(fine8, merged4)).reshape(n, s).mean(dim=1)
        return logit

    def _encode(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 2 and 8, and at stride 4 after the first merge; slices are items of the batch."""
        n, s, rows, columns = crops.shape
        flat = crops.reshape(n * s, 1, rows, columns)
        radius = self._radius(flat)
        folded = nn.functional.pixel_unshuffle(torch.cat([flat * 2 - 1, radius.expand_as(flat)], dim=1), 2)
        fine2 = self.stage2(self.stem(folded.contiguous(memory_format=torch.channels_last)))
        fine4 = self.stage4(fine2)
        fine8 = self.stage8(fine4)
        return fine2, fine8, self.merge4(fine8, fine4)

    @staticmethod
    def _radius(flat: Tensor) -> Tensor:
        """(1, 1, rows, columns) distance from the candidate, 0 at it and about 1 at the edge."""
        rows, columns = flat.shape[2], flat.shape[3]
        y = (torch.arange(rows, device=flat.device, dtype=flat.dtype) - rows // 2) / (rows / 2)
        x = (torch.arange(columns, device=flat.device, dtype=flat.dtype) - columns // 2) / (columns / 2)
        return torch.sqrt(y[:, None] ** 2 + x[None, :] ** 2)[None, None]

    @staticmethod
    def _pool(fine8: Tensor, merged4: Tensor) -> Tensor:
        """Mean over the crop and the features at the candidate itself: (n * s, features)."""
        middle8, middle4 = fine8.shape[2] // 2, merged4.shape[2] // 2
        at8 = fine8[:, :, middle8 - 1 : middle8 + 1, middle8 - 1 : middle8 + 1].mean(dim=(2, 3))
        at4 = merged4[:, :, middle4 - 1 : middle4 + 1, middle4 - 1 : middle4 + 1].mean(dim=(2, 3))
        return torch.cat([fine8.mean(dim=(2, 3)), at8, at4], dim=1)
