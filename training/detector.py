"""The first stage: a 3-D anchor-free detector over the whole lung box at 1 mm, decoded inside its own graph.

A space-to-depth stem folds 2x2x2 voxels into channels, because few channels at full resolution waste a CPU; most of
the arithmetic is spent at stride 4, where the heat map lives. Coarser levels are merged back for the context that
tells a nodule from a vessel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

STRIDE = 4
"""Voxels between neighbouring cells of the heat map."""

REFERENCE_DIAMETER_MM = 8.0
"""Diameters are regressed as the log of their ratio to this one."""


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv3d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, z, y, x), same shape out."""
        return torch.relu(self.second(self.first(x)) + x)


@dataclass(frozen=True)
class HeatMaps:
    """Raw outputs at stride 4; leading axis batch."""

    logit: Tensor
    """(n, 1, z, y, x) nodule centre in this cell."""
    offset: Tensor
    """(n, 3, z, y, x) centre minus the cell's centre in voxels, order z, y, x."""
    log_size: Tensor
    """(n, 1, z, y, x) log of diameter over `REFERENCE_DIAMETER_MM`."""


class Detector(nn.Module):
    """Lung volume in network units to heat maps.

    Parameters
    ----------
    widths
        Channels at strides 2, 4, 8 and 16.
    blocks
        Residual blocks at strides 4, 8 and 16.
    """

    def __init__(
        self, widths: tuple[int, int, int, int] = (24, 48, 96, 128), blocks: tuple[int, int, int] = (2, 2, 1)
    ) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.stem = convolution(8, w2)
        self.down4 = nn.Sequential(convolution(w2, w4, 2), *(Residual(w4) for _ in range(blocks[0])))
        self.down8 = nn.Sequential(convolution(w4, w8, 2), *(Residual(w8) for _ in range(blocks[1])))
        self.down16 = nn.Sequential(convolution(w8, w16, 2), *(Residual(w16) for _ in range(blocks[2])))
        self.lateral16 = nn.Conv3d(w16, w8, 1)
        self.merge8 = convolution(w8, w8)
        self.lateral8 = nn.Conv3d(w8, w4, 1)
        self.merge4 = convolution(w4, w4)
        self.heads = nn.Conv3d(w4, 5, 1)
        nn.init.zeros_(cast(Tensor, self.heads.bias))
        cast(Tensor, self.heads.bias).data[0] = -4.6  # a prior of 1 % keeps the first steps from exploding

    def forward(self, volume: Tensor) -> HeatMaps:
        """(n, 1, z, y, x) in 0..1; axes multiples of 16."""
        fine = self.down4(self.stem(space_to_depth(volume * 2 - 1)))
        middle = self.down8(fine)
        coarse = self.down16(middle)
        middle = self.merge8(middle + upsample(self.lateral16(coarse)))
        fine = self.merge4(fine + upsample(self.lateral8(middle)))
        out = self.heads(fine)
        return HeatMaps(out[:, :1], out[:, 1:4], out[:, 4:5])


def space_to_depth(volume: Tensor) -> Tensor:
    """(n, 1, z, y, x) -> (n, 8, z/2, y/2, x/2), written with reshapes that every ONNX runtime knows."""
    n, _, z, y, x = volume.shape
    folded = volume.reshape(n, z // 2, 2, y // 2, 2, x // 2, 2).permute(0, 2, 4, 6, 1, 3, 5)
    return folded.reshape(n, 8, z // 2, y // 2, x // 2)


def upsample(x: Tensor) -> Tensor:
    """Twice the size along each axis, nearest."""
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


class DecodedDetector(nn.Module):
    """A `Detector` with its decoding: what is exported.

    Returns boxes (n, k, 6) in the order of `app.inference.boxes`, index coordinates of the input, and scores (n, k)
    by falling order. A cell speaks only where it is the largest of its 3x3x3 neighbourhood.
    """

    def __init__(self, detector: Detector, *, spacing_mm: float, top: int = 128) -> None:
        super().__init__()
        self.detector = detector
        self.spacing_mm = spacing_mm
        self.top = top

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 1, z, y, x) network units."""
        maps = self.detector(volume)
        score = torch.sigmoid(maps.logit)
        peak = nn.functional.max_pool3d(score, 3, 1, 1)
        score = torch.where(score >= peak, score, torch.zeros_like(score))
        n, _, _, y, x = score.shape
        scores, cell = torch.topk(score.reshape(n, -1), self.top, dim=1)
        # written without %, which the exporter cannot translate for sizes known only at run time
        plane = cell // (y * x)
        row = (cell - plane * (y * x)) // x
        index = torch.stack([plane, row, cell - plane * (y * x) - row * x], dim=2).to(volume.dtype)
        gather = cell[:, :, None].expand(-1, -1, 3)
        offset = torch.gather(maps.offset.reshape(n, 3, -1).transpose(1, 2), 1, gather)
        log_size = torch.gather(maps.log_size.reshape(n, -1), 1, cell)
        center = cell_center(index) + offset
        half = torch.exp(log_size.clamp(-2.0, 2.5))[:, :, None] * (REFERENCE_DIAMETER_MM / self.spacing_mm / 2)
        return torch.cat([center - half, center + half], dim=2), scores


def cell_center(index: Tensor) -> Tensor:
    """Index coordinate, in voxels, of the middle of a heat-map cell."""
    return index * STRIDE + (STRIDE - 1) / 2
