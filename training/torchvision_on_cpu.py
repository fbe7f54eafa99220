"""Lets MONAI import torchvision beside a CPU build of torch.

MONAI's 3-D detection takes its matcher and its layer getter, both plain Python, from torchvision. The wheel on PyPI is
built for CUDA: beside a torch without CUDA its compiled operators do not load, and its import then fails because it
describes operators that nobody has declared. They are declared here, without an implementation. None of them (2-D
suppression, RoI pooling, deformable convolution) is called in three dimensions; one that is called says so.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

_OPERATORS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward", "roi_pool",
    "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward", "qroi_align", "deform_conv2d",
    "_deform_conv2d_backward",
)  # fmt: skip


def installed() -> bool:
    """Whether torch, torchvision and MONAI are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "torchvision", "monai"))


def before_monai() -> None:
    """Call before the first import of MONAI, for whatever part of it.

    MONAI imports all of itself, and torchvision with it, once; what failed then stays failed for the whole process.
    """
    if installed():
        declare_operators()


@functools.cache
def declare_operators() -> object:
    """Make ``import torchvision`` work, whatever build it is; call before the first import of `monai.apps.detection`.

    Returns
    -------
    object
        The declarations, which hold for as long as the process lives; None where torchvision's own operators load.
    """
    import torch  # noqa: PLC0415

    library_of: Any = torch.library.Library
    load: Any = torch.ops.load_library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("MONAI's detection needs torchvision: sh requirements/install_torch.sh PYTHON")
    try:
        load(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        library = library_of("torchvision", "FRAGMENT")
        for name in _OPERATORS:
            library.define(f"{name}(Tensor values) -> Tensor")
        return library
    return None
