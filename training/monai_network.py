"""The network of a bundle, rebuilt from its configuration, with its weights, in the axes of this house."""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.monai_bundle import Bundle
from training.monai_config import BundleError
from training.torchvision_on_cpu import declare_operators

_REVERSED = (2, 1, 0, 5, 4, 3)
"""(x, y, z, w, h, d) to (z, y, x, d, h, w) and back."""
MAX_LOG_SIZE = math.log(1000.0 / 16)
"""Where MONAI's `BoxCoder` stops an anchor from growing."""


def build_network(bundle: Bundle) -> nn.Module:
    """MONAI's own network of that shape, weights loaded, for evaluation.

    Nothing of the bundle is executed: names were checked against a list (`training.monai_bundle`), arguments are
    literals, and weights are read as tensors only.

    Raises
    ------
    BundleError
        If the weights are no plain tensors or belong to another network.
    """
    declare_operators()
    from monai.apps.detection.networks.retinanet_network import (  # noqa: PLC0415
        RetinaNet,
        resnet_fpn_feature_extractor,
    )
    from monai.networks.blocks.backbone_fpn_utils import BackboneWithFPN  # noqa: PLC0415
    from monai.networks.nets import resnet  # noqa: PLC0415

    shape = bundle.network
    trunk = getattr(resnet, shape.backbone.name)(*shape.backbone.positional, **shape.backbone.named)
    if shape.extractor.name == "BackboneWithFPN":
        order = ("backbone", "return_layers", "in_channels_list", "out_channels", "spatial_dims")
        given = shape.extractor.arguments(*order) | {"backbone": trunk}
        extractor = BackboneWithFPN(**given)
    else:
        order = ("backbone", "spatial_dims", "pretrained_backbone", "returned_layers", "trainable_backbone_layers")
        given = shape.extractor.arguments(*order) | {"backbone": trunk, "pretrained_backbone": False}
        extractor = resnet_fpn_feature_extractor(**given)
    network: nn.Module = RetinaNet(3, 1, shape.num_anchors, extractor, shape.size_divisible_xyz)
    _load(network, bundle)
    return network.eval()


def _load(network: nn.Module, bundle: Bundle) -> None:
    state = _tensors(bundle)
    outcome = network.load_state_dict(state, strict=False)
    if outcome.missing_keys or outcome.unexpected_keys:
        raise BundleError(
            f"{bundle.weights_name} belongs to another network than the configuration describes: missing "
            f"{outcome.missing_keys[:3]}, unexpected {outcome.unexpected_keys[:3]}"
        )


def _tensors(bundle: Bundle) -> dict[str, Tensor]:
    """The weights by name. A state dict is read with ``weights_only``, TorchScript by torch's own reader."""
    source = io.BytesIO(bundle.weights)
    try:
        if bundle.weights_name.endswith(".ts"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is old, and what was published is in it
                load: Any = torch.jit.load
                return dict(load(source, map_location="cpu").state_dict())
        state: Any = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise BundleError(f"{bundle.weights_name} is not read: {str(error)[:200]}") from error
    for key in ("model", "state_dict", "network"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BundleError(f"{bundle.weights_name} must hold a state dict: tensors by name")
    return {name.removeprefix("module."): value for name, value in state.items()}


class HeadsZyx(nn.Module):
    """Volume (n, 1, z, y, x) to the heads' maps, all logits, then all deltas, in the order z, y, x.

    The network itself runs in the axes that it was trained in.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> tuple[Tensor, ...]:
        """(n, a, d, h, w) for each level, then (n, 6 a, d, h, w) for each level."""
        said = self.network(volume.permute(0, 1, 4, 3, 2))
        logits = [level.permute(0, 1, 4, 3, 2) for level in said["classification"]]
        deltas = [_reordered(level) for level in said["box_regression"]]
        return (*logits, *deltas)


def _reordered(level: Tensor) -> Tensor:
    """(n, 6 a, x, y, z) with deltas x, y, z, w, h, d to (n, 6 a, z, y, x) with deltas z, y, x, d, h, w."""
    n, channels, x, y, z = level.shape
    split = level.reshape(n, channels // 6, 6, x, y, z)[:, :, list(_REVERSED)]
    return split.permute(0, 1, 2, 5, 4, 3).reshape(n, channels, z, y, x)


class DecodedRetinaNet(nn.Module):
    """Network, anchors, box decoding, sigmoid and the best of each level in one graph.

    What MONAI's `BoxSelector` does, which cannot be exported, but for suppression: that stays with the service. Anchors
    follow the size of the input. Returns boxes (1, k, 6) in the order of `app.inference.boxes`, clipped to the
    input, and scores (1, k) by falling order; k does not depend on the input, what is too little is filled up with
    scores of 0.
    """

    def __init__(self, network: nn.Module, bundle: Bundle, strides_zyx: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.heads = HeadsZyx(network)
        self.levels = len(strides_zyx)
        self.top = bundle.selection.topk_candidates_per_level
        self.strides = [[int(s) for s in stride] for stride in strides_zyx]
        for level in range(self.levels):
            sizes = torch.tensor(bundle.anchor_sizes_xyz(level)).flip(1)
            self.register_buffer(f"sizes_{level}", sizes)
        self.register_buffer("weights", torch.tensor([bundle.coder_weights[i] for i in _REVERSED]))

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 1, z, y, x) network units; axes multiples of what the network divides them by."""
        maps = self.heads(volume)
        found = [self._level(maps[n], maps[self.levels + n], n) for n in range(self.levels)]
        boxes, scores = torch.cat([b for b, _ in found]), torch.cat([s for _, s in found])
        end = torch.tensor([volume.shape[2], volume.shape[3], volume.shape[4]], dtype=boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0.0), end.repeat(2))
        long_enough = (boxes[:, 3:] - boxes[:, :3] >= 1.0).all(dim=1)
        scores = torch.where(long_enough, scores, torch.zeros_like(scores))
        scores, order = torch.sort(scores, descending=True)
        return boxes[order][None], scores[None]

    def _level(self, logits: Tensor, deltas: Tensor, level: int) -> tuple[Tensor, Tensor]:
        _, anchors, depth, height, width = logits.shape
        filler = torch.full((self.top,), -1e4, dtype=logits.dtype)
        flat = torch.cat([logits[0].permute(1, 2, 3, 0).reshape(-1), filler])
        best, place = torch.topk(flat, self.top)
        place = place.clamp(max=depth * height * width * anchors - 1)
        cell = place // anchors
        plane = cell // (height * width)
        row = (cell - plane * (height * width)) // width
        index = torch.stack([plane, row, cell - plane * (height * width) - row * width], dim=1).to(logits.dtype)
        stride = torch.tensor(self.strides[level], dtype=logits.dtype)
        size = self.get_buffer(f"sizes_{level}")[place - cell * anchors]
        every = deltas[0].reshape(anchors, 6, -1).permute(2, 0, 1).reshape(-1, 6)
        delta = every[place] / self.get_buffer("weights")
        center = index * stride + torch.floor(stride / 2) + delta[:, :3] * size
        half = torch.exp(delta[:, 3:].clamp(max=MAX_LOG_SIZE)) * size / 2
        return torch.cat([center - half, center + half], dim=1), torch.sigmoid(best)


def strides_zyx(network: nn.Module, bundle: Bundle) -> list[tuple[int, int, int]]:
    """Voxels between neighbouring cells of each level, as MONAI takes them: input size over map size, whole."""
    shape = tuple(4 * n for n in bundle.network.size_divisible_xyz)
    with torch.no_grad():
        maps = network(torch.zeros(1, 1, *shape))["classification"]
    found = []
    for level in maps:
        if any(n % m for n, m in zip(shape, level.shape[2:], strict=True)):
            raise BundleError(f"a map of {tuple(level.shape[2:])} cells does not divide an input of {shape} voxels")
        x, y, z = (n // m for n, m in zip(shape, level.shape[2:], strict=True))
        found.append((z, y, x))
    if len(found) != len(bundle.anchor_scales) or len(bundle.anchor_shapes_xyz) != bundle.network.num_anchors:
        raise BundleError(
            f"the network has {len(found)} levels of {bundle.network.num_anchors} anchors, anchor_generator "
            f"{len(bundle.anchor_scales)} of {len(bundle.anchor_shapes_xyz)}"
        )
    return found
