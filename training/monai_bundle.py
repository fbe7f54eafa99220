"""What an import needs of a MONAI detection bundle, read from its own configuration."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from training.monai_config import BundleError, Call, Configuration

_RESNETS = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200", "ResNet")
_RESNET_ARGUMENTS = (
    "block", "layers", "block_inplanes", "spatial_dims", "n_input_channels", "conv1_t_size", "conv1_t_stride",
    "no_max_pool", "shortcut_type", "widen_factor", "num_classes", "feed_forward", "bias_downsample",
)  # fmt: skip
_TRAINING_ONLY = ("set_atss_matcher", "set_regular_matcher", "set_hard_negative_sampler", "set_balanced_sampler",
                  "set_cls_loss", "set_box_regression_loss", "set_target_keys")  # fmt: skip
_HARMLESS_TRANSFORMS = ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord", "DeleteItemsd", "CastToTyped")
_LARGEST_FILE = 2 << 30
XYZ = tuple[float, float, float]
Cells = tuple[int, int, int]


@dataclass(frozen=True)
class NetworkShape:
    """The network as the configuration describes it."""

    backbone: Call
    extractor: Call
    num_anchors: int
    size_divisible_xyz: Cells


@dataclass(frozen=True)
class BoxSelection:
    """How the bundle chooses among boxes."""

    score_thresh: float = 0.05
    topk_candidates_per_level: int = 1000
    nms_thresh: float = 0.5
    detections_per_img: int = 300


@dataclass(frozen=True)
class Bundle:
    """Everything that decides which boxes the bundle gives; axes (x, y, z) of an array that runs right, front, head."""

    network: NetworkShape
    anchor_scales: tuple[float, ...]
    anchor_shapes_xyz: tuple[XYZ, ...]
    selection: BoxSelection
    coder_weights: tuple[float, ...]
    window_xyz: Cells
    overlap: float
    spacing_xyz_mm: XYZ
    window_hu: tuple[float, float]
    metadata: dict[str, Any]
    weights: bytes
    weights_name: str

    def anchor_sizes_xyz(self, level: int) -> list[XYZ]:
        """Side lengths of a level's anchors in voxels: MONAI rounds half of each side to a whole voxel."""
        half = np.rint(np.asarray(self.anchor_shapes_xyz) * self.anchor_scales[level] / 2)
        return [(float(x), float(y), float(z)) for x, y, z in 2 * half]


def read_bundle(path: Path, *, spacing_xyz_mm: XYZ | None = None) -> Bundle:
    """Read a bundle's folder or zip.

    Parameters
    ----------
    path
        Folder or zip file with ``configs/inference.json`` and ``models/model.pt`` or ``models/model.ts``.
    spacing_xyz_mm
        For a bundle whose configuration does not resample.

    Raises
    ------
    BundleError
        If a part is missing, or does something that the import cannot reproduce; the message says what.
    """
    read = _reader(path)
    text = read("configs/inference.json")
    if text is None:
        raise BundleError(f"{path} holds no configs/inference.json: it is no MONAI bundle, or not the whole of it")
    configuration = Configuration.parsed(text, "configs/inference.json")
    weights_name, weights = _weights(path, read)
    anchors = configuration.call("anchor_generator")
    if anchors.name != "AnchorGeneratorWithAnchorShape":
        raise BundleError(f"anchor_generator {anchors.source}: only AnchorGeneratorWithAnchorShape is understood")
    given = anchors.arguments("feature_map_scales", "base_anchor_shapes")
    selection, coder, window, overlap = _detector_operations(configuration)
    spacing, hu = _preprocessing(configuration, spacing_xyz_mm)
    return Bundle(
        network=_network(configuration),
        anchor_scales=tuple(float(scale) for scale in given["feature_map_scales"]),
        anchor_shapes_xyz=tuple(_triple(shape, "base_anchor_shapes") for shape in given["base_anchor_shapes"]),
        selection=selection,
        coder_weights=coder,
        window_xyz=window,
        overlap=overlap,
        spacing_xyz_mm=spacing,
        window_hu=hu,
        metadata=json.loads(read("configs/metadata.json") or b"{}"),
        weights=weights,
        weights_name=weights_name,
    )


def _reader(path: Path) -> Callable[[str], bytes | None]:
    """Files of the bundle by their name in it; of a zip nothing is unpacked to disk."""
    if path.is_dir():
        return lambda name: (path / name).read_bytes() if (path / name).is_file() else None
    if not zipfile.is_zipfile(path):
        raise BundleError(f"{path} is neither a folder nor a zip file")
    content = path.read_bytes()

    def read(name: str) -> bytes | None:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            wanted = PurePosixPath(name).parts
            members = [m for m in archive.infolist() if PurePosixPath(m.filename).parts[-len(wanted) :] == wanted]
            if len(members) > 1:
                raise BundleError(f"{path} holds several {name}: {[m.filename for m in members]}")
            if members and members[0].file_size > _LARGEST_FILE:
                raise BundleError(f"{name} unpacks to {members[0].file_size} bytes; at most {_LARGEST_FILE} are read")
            return archive.read(members[0]) if members else None

    return read


def _weights(path: Path, read: Callable[[str], bytes | None]) -> tuple[str, bytes]:
    for name in ("models/model.pt", "models/model.ts"):
        content = read(name)
        if content is not None:
            return name, content
    raise BundleError(
        f"{path} holds neither models/model.pt nor models/model.ts: fetch the weights too, they are not part of the "
        "repository (large_files.yml of the bundle says where they are)"
    )


def _network(configuration: Configuration) -> NetworkShape:
    network = configuration.call("network_def")
    if network.name != "RetinaNet":
        raise BundleError(f"network_def {network.source}: only monai.apps.detection's RetinaNet is understood")
    order = ("spatial_dims", "num_classes", "num_anchors", "feature_extractor", "size_divisible", "use_list_output")
    given = network.arguments(*order)
    if given["spatial_dims"] != 3 or given["num_classes"] != 1:
        raise BundleError(
            f"network_def has {given['num_classes']} classes in {given['spatial_dims']} dimensions; one class in three "
            "dimensions is understood"
        )
    extractor = configuration.as_call(given["feature_extractor"], "feature_extractor")
    if extractor.name not in {"resnet_fpn_feature_extractor", "BackboneWithFPN"}:
        raise BundleError(
            f"feature_extractor {extractor.source}: known are resnet_fpn_feature_extractor, BackboneWithFPN"
        )
    reference = extractor.named.get("backbone") or (extractor.positional[:1] or (None,))[0]
    backbone = configuration.as_call(reference, "backbone")
    if backbone.name not in _RESNETS:
        raise BundleError(f"backbone {backbone.source}: known are {', '.join(_RESNETS)}")
    backbone.arguments(
        *(_RESNET_ARGUMENTS if backbone.name == "ResNet" else ("pretrained", "progress", *_RESNET_ARGUMENTS))
    )
    divisible = given.get("size_divisible", 1)
    x, y, z = [divisible] * 3 if isinstance(divisible, int) else divisible
    return NetworkShape(backbone, extractor, int(given["num_anchors"]), (int(x), int(y), int(z)))


def _detector_operations(
    configuration: Configuration,
) -> tuple[BoxSelection, tuple[float, ...], Cells, float]:
    detector = configuration.call("detector")
    detector.arguments("network", "anchor_generator", "debug", "spatial_dims", "num_classes", "size_divisible")
    selection = BoxSelection()
    coder: tuple[float, ...] = (1.0,) * 6
    window: Cells | None = None
    overlap = 0.25
    for call in configuration.method_calls("detector_ops", "detector"):
        if call.name == "set_box_selector_parameters":
            fields = ("score_thresh", "topk_candidates_per_level", "nms_thresh", "detections_per_img")
            given = call.arguments(*fields, "apply_sigmoid")
            if given.pop("apply_sigmoid", True) is not True:
                raise BundleError(f"{call.source}: scores without a sigmoid are not understood")
            selection = BoxSelection(**given)
        elif call.name == "set_sliding_window_inferer":
            order = ("roi_size", "sw_batch_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval", "sw_device",
                     "device", "progress", "cache_roi_weight_map")  # fmt: skip
            given = call.arguments(*order)
            if given.get("mode", "constant") != "constant" or given.get("padding_mode", "constant") != "constant":
                raise BundleError(f"{call.source}: windows are blended with constant weights and padded with air only")
            x, y, z = given["roi_size"]
            window, overlap = (int(x), int(y), int(z)), float(given.get("overlap", overlap))
        elif call.name == "set_box_coder_weights":
            coder = tuple(float(w) for w in call.arguments("weights")["weights"])
        elif call.name not in _TRAINING_ONLY:
            raise BundleError(f"detector_ops: {call.source} is not understood")
    if window is None or len(coder) != 6:
        raise BundleError(
            "detector_ops must set a sliding window and six box coder weights, or leave the weights alone"
        )
    return selection, coder, window, overlap


def _preprocessing(configuration: Configuration, told: XYZ | None) -> tuple[XYZ, tuple[float, float]]:
    """Spacing and window. A disabled `Spacingd` counts: the bundle disables it for data that was resampled before."""
    spacing, hu, oriented = told, None, False
    for number, _ in enumerate(configuration.value("preprocessing#transforms")):
        entry = configuration.value(f"preprocessing#transforms#{number}")
        call = configuration.as_call(entry, "preprocessing")
        if call.name == "Orientationd":
            if call.arguments("keys", "axcodes")["axcodes"] != "RAS":
                raise BundleError(f"preprocessing: orientation {call.named['axcodes']}; RAS is understood")
            oriented = True
        elif call.name == "Spacingd":
            spacing = told or _spacing(call)
        elif call.name == "ScaleIntensityRanged":
            hu = _window_hu(call)
        elif call.name not in _HARMLESS_TRANSFORMS:
            raise BundleError(f"preprocessing: the transform {call.source} is not understood")
    if spacing is None:
        raise BundleError("preprocessing sets no spacing (Spacingd): say what the network was trained at, --spacing-mm")
    if hu is None or not oriented:
        raise BundleError("preprocessing must hold Orientationd and ScaleIntensityRanged")
    return spacing, hu


def _spacing(call: Call) -> XYZ:
    given = call.arguments("keys", "pixdim", "mode", "padding_mode", "align_corners", "diagonal")
    mode = given.get("mode", "bilinear")
    if (mode[0] if isinstance(mode, list) else mode) != "bilinear" or given.get("padding_mode", "border") != "border":
        raise BundleError(f"preprocessing: {call.source} must interpolate linearly and repeat the border")
    return _triple(given["pixdim"], "pixdim")


def _window_hu(call: Call) -> tuple[float, float]:
    given = call.arguments("keys", "a_min", "a_max", "b_min", "b_max", "clip")
    if (given["b_min"], given["b_max"], given.get("clip", False)) != (0.0, 1.0, True):
        raise BundleError("preprocessing: ScaleIntensityRanged must clip to 0..1")
    return float(given["a_min"]), float(given["a_max"])


def _triple(values: Any, name: str) -> XYZ:  # noqa: ANN401 - JSON
    numbers = [float(value) for value in values]
    if len(numbers) != 3 or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise BundleError(f"{name} must be three positive numbers, found {values}")
    x, y, z = numbers
    return x, y, z
