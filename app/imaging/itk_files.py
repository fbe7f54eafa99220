"""`.mha`, `.mhd` with its `.raw`, `.nii`, `.nii.gz` and `.nrrd` as HU volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from app.imaging.errors import UnreadableScan
from app.imaging.inputs import ScanFile
from app.imaging.volume import CtVolume, Grid

_SUFFIX = {"metaimage": ".mha", "nifti": ".nii", "nrrd": ".nrrd"}


def image_format(file: ScanFile) -> str | None:
    """`metaimage`, `nifti`, `nrrd`, or None for anything else; by content first."""
    head = file.head(352)
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if b"NDims" in head or b"ObjectType" in head:
        return "metaimage"
    if head[344:348] in (b"n+1\0", b"n+2\0") or (head[:2] == b"\x1f\x8b" and file.name.lower().endswith(".nii.gz")):
        return "nifti"
    return None


def read_image(file: ScanFile, scratch: Path) -> CtVolume:
    """Read one image file into HU."""
    kind = image_format(file)
    compressed = file.head(2) == b"\x1f\x8b"
    link = scratch / f"image-{file.index}{_SUFFIX[kind or 'metaimage']}{'.gz' if compressed else ''}"
    if file.offset == 0 and file.size == file.path.stat().st_size:
        link.symlink_to(file.path.resolve())
    else:
        with file.open() as stream:
            link.write_bytes(stream.read())
    try:
        image = sitk.ReadImage(str(link))
    except RuntimeError as fault:
        raise UnreadableScan(
            f"File {file.index} cannot be read as an image.", code="decode_failed", values={"file": file.index}
        ) from fault
    if image.GetDimension() != 3:
        raise UnreadableScan("not three-dimensional", code="invalid_pixel_format", values={"file": file.index})
    array = sitk.GetArrayFromImage(image)
    if array.dtype != np.int16:
        array = np.clip(np.rint(array), -32768, 32767).astype(np.int16)
    direction = np.asarray(image.GetDirection()).reshape(3, 3)[:, ::-1]
    grid = Grid.from_spacing(array.shape, image.GetSpacing()[::-1], image.GetOrigin(), direction)
    return CtVolume(array, grid)
