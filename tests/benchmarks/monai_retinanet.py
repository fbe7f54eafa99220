"""The network of MONAI's `lung_nodule_ct_detection` bundle: its architecture with random weights, as an ONNX file.

    python -m tests.benchmarks.monai_retinanet retinanet.onnx --window 256 256 96

A 3-D RetinaNet on the first two stages of a ResNet-50, at 0.703125 x 0.703125 x 1.25 mm, applied to windows of
512 x 512 x 192 voxels (x, y, z) that overlap by a quarter. Weights do not change what a convolution costs, and the
heads alone are exported: anchors, box decoding and suppression come on top of what is measured here. Needs the
``training`` extra.
"""

# ruff: noqa: PLC0415 - torch and MONAI are optional; without them the other benchmarks still run

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import ROOT, say

WINDOW_XYZ = (512, 512, 192)
OVERLAP = 0.25
SPACING_XYZ_MM = (0.703125, 0.703125, 1.25)
DIVISIBLE_XYZ = (16, 16, 8)
_CHANNELS = 256
_ANCHORS = 3


def installed() -> bool:
    """Whether torch and MONAI are there."""
    return find_spec("torch") is not None and find_spec("monai") is not None


def windows_of(shape_xyz: tuple[int, int, int], window_xyz: tuple[int, int, int] = WINDOW_XYZ) -> int:
    """Windows that MONAI's sliding-window inference makes of a volume; an axis shorter than the window is padded."""
    counts = []
    for length, window in zip(shape_xyz, window_xyz, strict=True):
        step = int(window * (1 - OVERLAP))
        counts.append(1 if length <= window else math.ceil((length - window) / step) + 1)
    return math.prod(counts)


def shape_at_its_spacing(shape_zyx: tuple[int, int, int], spacing_zyx_mm: Any) -> tuple[int, int, int]:
    """(x, y, z) voxels of a scan once resampled as the bundle does; it does not crop to the lungs."""
    extent = [n * float(mm) for n, mm in zip(shape_zyx[::-1], list(spacing_zyx_mm)[::-1], strict=True)]
    x, y, z = (round(mm / spacing) for mm, spacing in zip(extent, SPACING_XYZ_MM, strict=True))
    return x, y, z


def export(path: Path, window_xyz: tuple[int, int, int]) -> Path:
    """Write the network for one window size."""
    if any(n % d for n, d in zip(window_xyz, DIVISIBLE_XYZ, strict=True)):
        raise SystemExit(f"a window must be a multiple of {DIVISIBLE_XYZ}, got {window_xyz}")
    import torch

    torch.manual_seed(0)
    network = _retinanet().eval()
    with torch.no_grad(), warnings.catch_warnings():
        # It checks its outputs for NaN in Python, which a trace cannot follow and need not.
        warnings.simplefilter("ignore")
        # The older exporter: it traces, and needs a window no larger than what is to be run.
        torch.onnx.export(network, (torch.zeros(1, 1, *window_xyz),), str(path), dynamo=False, opset_version=17)
    return path


def exported(folder: Path, window_xyz: tuple[int, int, int]) -> Path:
    """The file for one window, written by a process of its own unless it is there: torch stays out of this one."""
    path = folder / f"retinanet-{'x'.join(map(str, window_xyz))}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        say(f"  exporting {path.name}")
        command = [sys.executable, "-m", "tests.benchmarks.monai_retinanet", str(path), "--window"]
        subprocess.run([*command, *map(str, window_xyz)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return path


def _retinanet() -> Any:
    import torch
    from monai.apps.detection.networks.retinanet_network import RetinaNet
    from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
    from monai.networks.nets.resnet import resnet50

    class Features(torch.nn.Module):
        """What the bundle's feature extractor is, without the torchvision that builds it there."""

        out_channels = _CHANNELS

        def __init__(self) -> None:
            super().__init__()
            trunk = resnet50(
                spatial_dims=3, n_input_channels=1, conv1_t_stride=[2, 2, 1], conv1_t_size=[7, 7, 7], num_classes=1
            )
            self.stem = torch.nn.Sequential(trunk.conv1, trunk.bn1, trunk.act, trunk.maxpool)
            self.stages = torch.nn.ModuleList([trunk.layer1, trunk.layer2])
            self.pyramid = FeaturePyramidNetwork(3, [256, 512], _CHANNELS, extra_blocks=LastLevelMaxPool(3))

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            seen = list(itertools.accumulate(self.stages, lambda value, stage: stage(value), initial=self.stem(image)))
            return list(self.pyramid({"0": seen[1], "1": seen[2]}).values())

    return RetinaNet(3, 1, _ANCHORS, Features(), size_divisible=list(DIVISIBLE_XYZ), use_list_output=True)


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--window", type=int, nargs=3, default=WINDOW_XYZ, metavar=("X", "Y", "Z"))
    options = parser.parse_args()
    x, y, z = options.window
    export(options.path, (x, y, z))


if __name__ == "__main__":
    main()
