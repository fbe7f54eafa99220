"""A bundle's network as an ONNX file: `training.onnx_files` with the sizes that a pyramid allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from app.inference.manifest import Parity
from training.onnx_files import parity, write_onnx


def export_network(network: nn.Module, path: Path, outputs: Sequence[str], multiple_zyx: tuple[int, int, int]) -> None:
    """Write ``network`` with the input ``volume`` (1, 1, z, y, x), any multiple of ``multiple_zyx``."""
    example = torch.zeros(1, 1, *(4 * n for n in multiple_zyx))
    sizes = {axis: n * torch.export.Dim(name) for axis, n, name in zip((2, 3, 4), multiple_zyx, "zyx", strict=True)}
    write_onnx(network, path, example, "volume", outputs, sizes)


def bundle_parity(network: nn.Module, path: Path, multiple_zyx: tuple[int, int, int], *, seed: int = 0) -> Parity:
    """`training.onnx_files.parity` on smooth noise, at a size other than the exported one."""
    shape = [n * count for n, count in zip(multiple_zyx, (5, 4, 3), strict=True)]
    noise = torch.rand(1, 1, *(n + 6 for n in shape), generator=torch.Generator().manual_seed(seed))
    return parity(network, path, "volume", torch.nn.functional.avg_pool3d(noise, 7, 1))
