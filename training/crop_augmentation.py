"""Random views of cached axial crops; what is random about a crop is decided here, how it is resampled is not.

Half of the batches see only flips, quarter turns and whole-pixel shifts: the service never interpolates twice, so the
network must know unsmoothed noise as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHIFT_PX = 2.0
TURN_RAD = math.pi / 4
ZOOM = 1.2


def middle(crops: Tensor, size_px: int) -> Tensor:
    """The middle ``size_px`` of (n, s, rows, columns): index size/2 of the crop stays at index size_px/2."""
    start = crops.shape[-1] // 2 - size_px // 2
    return crops[..., start : start + size_px, start : start + size_px]


def random_views(
    crops: Tensor, size_px: int, generator: torch.Generator, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Turn, mirror, shift, zoom and re-window a batch.

    Parameters
    ----------
    crops
        uint8 (n, s, wide, wide); all slices of one item move together.
    size_px
        Side of the views.
    mask
        Optional uint8 of the same shape, moved alike.

    Returns
    -------
    views, mask
        float32 (n, s, size_px, size_px), in 0..1.
    """
    stack = crops[:, None] if mask is None else torch.stack([crops, mask], dim=1)
    stack = torch.rot90(stack, int(torch.randint(0, 4, (1,), generator=generator)), (3, 4))
    if torch.rand(1, generator=generator) < 0.5:
        stack = stack.flip(4)
    if crops.shape[1] > 1 and torch.rand(1, generator=generator) < 0.5:
        stack = stack.flip(2)
    n, kinds, s = stack.shape[:3]
    flat = stack.reshape(n, kinds * s, *stack.shape[3:]).float() / 255
    if torch.rand(1, generator=generator) < 0.5:
        flat = _affine(flat, size_px, generator)
    else:
        flat = _whole_shift(flat, size_px, generator)
    views = flat.reshape(n, kinds, s, size_px, size_px)
    return _intensity(views[:, 0], generator), (views[:, 1] if mask is not None else None)


def _affine(flat: Tensor, size_px: int, generator: torch.Generator) -> Tensor:
    """Small rotation, zoom and sub-pixel shift about the candidate."""
    n, wide = flat.shape[0], flat.shape[-1]
    turn = (torch.rand(n, generator=generator) * 2 - 1) * TURN_RAD
    zoom = torch.exp((torch.rand(n, generator=generator) * 2 - 1) * math.log(ZOOM))
    shift = torch.randn(n, 2, generator=generator).clamp(-2, 2) * SHIFT_PX / (wide / 2)
    cos, sin = torch.cos(turn) * zoom * size_px / wide, torch.sin(turn) * zoom * size_px / wide
    # grids count from the middle between pixels, candidates sit on the pixel right of it
    half = 1 / wide - (cos - sin) / size_px, 1 / wide - (cos + sin) / size_px
    rows = torch.stack(
        [torch.stack([cos, -sin, half[0] + shift[:, 0]], 1), torch.stack([sin, cos, half[1] + shift[:, 1]], 1)], 1
    )
    grid = torch.nn.functional.affine_grid(rows, [n, 1, size_px, size_px], align_corners=False)
    return torch.nn.functional.grid_sample(flat, grid, align_corners=False)


def _whole_shift(flat: Tensor, size_px: int, generator: torch.Generator) -> Tensor:
    """Shift by whole pixels: nothing is interpolated."""
    start = flat.shape[-1] // 2 - size_px // 2
    n = flat.shape[0]
    move = torch.randn(n, 2, generator=generator).mul(SHIFT_PX).round().clamp(-4, 4).long()
    index = torch.arange(size_px)
    rows = (start + move[:, :1] + index).reshape(n, 1, size_px, 1)
    columns = (start + move[:, 1:] + index).reshape(n, 1, 1, size_px)
    item = torch.arange(n).reshape(n, 1, 1, 1)
    channel = torch.arange(flat.shape[1]).reshape(1, -1, 1, 1)
    return flat[item, channel, rows, columns]


def _intensity(views: Tensor, generator: torch.Generator) -> Tensor:
    """Calibration, dose and field of view differ between scanners."""
    n, wide = views.shape[0], views.shape[-1]
    each = (n, 1, 1, 1)
    gain = 1 + torch.randn(each, generator=generator) * 0.06
    offset = torch.randn(each, generator=generator) * 0.02
    noise = torch.randn(views.shape, generator=generator) * torch.rand(each, generator=generator) * 0.02
    views = (views * gain + offset + noise).clamp(0, 1)
    if torch.rand(1, generator=generator) < 0.3:
        edge = int(torch.randint(0, wide // 6, (1,), generator=generator))
        seen = torch.zeros(wide)
        seen[edge : wide - edge] = 1
        views = views * seen[:, None] * seen[None, :]
    return views
