"""What a bundle itself says of a scan: MONAI's transforms, windows, detector and post-processing, as configured.

Unlike the import, this evaluates the expressions of the bundle's configuration, as `monai.bundle` does: only for
bundles that are trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.torchvision_on_cpu import declare_operators

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class BundleAnswer:
    """Boxes by falling score."""

    boxes_index_xyz: NDArray[np.float64]
    """(n, 6) (x, y, z, x, y, z) in index coordinates of the bundle's own resampled array."""
    boxes_world_lps_mm: NDArray[np.float64]
    """(n, 6) the same after the bundle's own way to the world; not boxes any more where the scan lies oblique."""
    scores: NDArray[np.float64]
    affine_lps: NDArray[np.float64]
    """(4, 4) index (x, y, z) of that array to patient LPS mm."""
    values_xyz: NDArray[np.float32]
    """What the network was given, before padding."""
    windows: bool
    """Whether the volume was cut into windows."""


class BundlePipeline:
    """A bundle that has been put together by MONAI, with its weights."""

    def __init__(self, folder: Path) -> None:
        declare_operators()
        from monai.bundle.config_parser import ConfigParser  # noqa: PLC0415

        config = json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
        config |= {"bundle_root": str(folder), "device": "$torch.device('cpu')", "amp": False}
        config["imports"] = ["$import torch", "$import monai"]
        if "whether_raw_luna16" in config:
            config["whether_raw_luna16"] = True
        for transform in config["preprocessing"]["transforms"]:
            if str(transform["_target_"]).endswith("LoadImaged"):
                # The one of MONAI's readers whose library is here; it reads what the service reads, DICOM.
                transform["reader"] = "PydicomReader"
                transform["affine_lps_to_ras"] = True
        parser = ConfigParser(config)
        self.preprocessing: Any = parser.get_parsed_content("preprocessing")
        self.detector: Any = parser.get_parsed_content("detector")
        parser.get_parsed_content("detector_ops")
        self.postprocessing: Any = parser.get_parsed_content("postprocessing")
        state = torch.load(folder / "models" / "model.pt", map_location="cpu", weights_only=True)
        self.detector.network.load_state_dict(state.get("model", state))
        self.detector.eval()

    def __call__(self, dicom_folder: Path) -> BundleAnswer:
        """Read, prepare, detect."""
        image = self.preprocessing({"image": str(dicom_folder)})["image"]
        window = math.prod(self.detector.inferer.roi_size)
        # The rule of the bundle's own inferer (scripts/detection_inferer.py): windows only for what exceeds one.
        windows = image[0].numel() >= window
        with torch.no_grad():
            found = self.detector([image], use_inferer=windows)[0]
        return self._answer(image, found, windows=windows)

    def _answer(self, image: Any, found: Mapping[str, Any], *, windows: bool) -> BundleAnswer:  # noqa: ANN401
        affine = _RAS_TO_LPS @ np.asarray(image.affine, dtype=np.float64)
        index = np.asarray(found["box"].as_tensor() if hasattr(found["box"], "as_tensor") else found["box"])
        world = self.postprocessing({**found, "image": image})
        return BundleAnswer(
            boxes_index_xyz=index.astype(np.float64),
            boxes_world_lps_mm=np.asarray(world["box"], dtype=np.float64),
            scores=np.asarray(found["label_scores"], dtype=np.float64),
            affine_lps=affine,
            values_xyz=np.asarray(image[0], dtype=np.float32),
            windows=windows,
        )
