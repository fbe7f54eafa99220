"""`.mha`, `.mhd` with its `.raw`, `.nii`, `.nii.gz` and `.nrrd` as HU volumes: checked here, read by ITK in a child."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import SeriesSummary
from app.imaging.child_process import ChildFailedError, PixelWorker
from app.imaging.errors import UnreadableScan, UploadTooLarge
from app.imaging.inputs import ScanFile
from app.imaging.itk_headers import VolumeHeader, read_volume_header, refused
from app.imaging.read_options import GIB, ReadLimits
from app.imaging.volume import CtVolume, Grid

_READER = {"metaimage": "MetaImageIO", "nifti": "NiftiImageIO", "nrrd": "NrrdImageIO"}
_MEMORY_PER_DATA_BYTE = 3
"""ITK holds the samples, and for some encodings a second time while reading."""
_SPACING_RANGE_MM = (0.05, 20.0)
_MAX_INT32 = (1 << 31) - 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ReadVolume:
    """A volume, what the report says of it, and the index of the file that its samples came from."""

    volume: CtVolume
    summary: SeriesSummary
    samples_file: int


def read_volume_file(
    file: ScanFile, source_format: str, beside: Sequence[ScanFile], scratch: Path, limits: ReadLimits
) -> ReadVolume:
    """Read one volume file.

    Parameters
    ----------
    file
        The file, with its format as `app.imaging.itk_headers.volume_format` tells it.
    source_format
        `metaimage`, `nifti` or `nrrd`.
    beside
        Files that came with it; where an `.mhd` looks for its samples, by the sender's plain name.
    scratch
        Folder for links and copies; the caller removes it.
    limits
        Voxels, memory, time.

    Returns
    -------
    ReadVolume
        HU rounded and clamped to int16; a grid in LPS whatever the file's own convention.

    Raises
    ------
    UnsupportedFormat, UploadTooLarge
    UnreadableScan
        ``truncated``, ``missing_data_file``, ``damaged_header``, ``invalid_geometry``, ``not_finite`` or
        ``decode_failed``.
    """
    header = read_volume_header(file, source_format)
    _check_size(file, header, limits)
    data = file if header.data_name is None else _beside(file, header.data_name, beside)
    if not header.compressed and data.size - header.data_offset < header.data_bytes:
        raise refused(
            file,
            f"{header.data_bytes} bytes of samples are needed, {max(0, data.size - header.data_offset)} are there",
            "truncated",
        )
    memory = GIB + _MEMORY_PER_DATA_BYTE * header.data_bytes
    with PixelWorker(memory, limits.decode_timeout_s) as child:
        try:
            answer, payload = child.ask(
                {"path": str(_for_itk(data, header, scratch)), "reader": _READER[source_format]},
                max_bytes=2 * math.prod(header.size_xyz),
            )
        except ChildFailedError as fault:
            raise refused(file, "ITK cannot read it within the limits of memory and time", "decode_failed") from fault
    if "fault" in answer:
        raise refused(file, "it has samples that are not finite, or not one number each", str(answer["fault"]))
    hu = _shaped(file, header, payload, answer)
    grid = _grid(file, hu.shape, answer)
    z, y, x = (round(float(value), 6) for value in grid.spacing_zyx_mm)
    depth, height, width = hu.shape
    summary = SeriesSummary(None, None, depth, height, width, spacing_zyx_mm=(z, y, x))
    return ReadVolume(CtVolume(hu, grid), summary, samples_file=data.index)


def _check_size(file: ScanFile, header: VolumeHeader, limits: ReadLimits) -> None:
    voxels = math.prod(header.size_xyz)
    if voxels > limits.max_voxels:
        raise UploadTooLarge(
            f"File {file.index} says {' x '.join(map(str, header.size_xyz))} voxels; at most {limits.max_voxels} "
            "are read.",
            code="too_many_voxels",
            values={"file": file.index, "voxels": voxels, "max_voxels": limits.max_voxels},
        )


def _beside(file: ScanFile, name: str, others: Sequence[ScanFile]) -> ScanFile:
    found = [other for other in others if other.name == name and other is not file]
    if len(found) != 1:
        raise UnreadableScan(
            f"File {file.index} names the file with its samples, and {len(found)} files of that name came with it. "
            "Send both together, under their own names.",
            code="missing_data_file",
            values={"file": file.index, "found": len(found)},
        )
    return found[0]


def _for_itk(data: ScanFile, header: VolumeHeader, scratch: Path) -> Path:
    """A path under a name of ours that ITK can open."""
    if header.source_format == "metaimage":
        return _metaimage_for_itk(data, header, scratch)
    suffix = {"nifti": ".nii", "nrrd": ".nrrd"}[header.source_format]
    if header.compressed and header.source_format == "nifti":
        suffix += ".gz"
    return _as_file(data, scratch / f"volume-{data.index}{suffix}")


def _metaimage_for_itk(data: ScanFile, header: VolumeHeader, scratch: Path) -> Path:
    """Write a header of our own, with known fields only, that points at the samples wherever they lie."""
    start = data.offset + header.data_offset
    path = data.path
    if start > _MAX_INT32:
        path, start = _as_file(data, scratch / f"volume-{data.index}.raw"), header.data_offset
    samples = scratch / f"samples-{data.index}"
    samples.symlink_to(path.resolve())
    lines = ["ObjectType = Image", *(f"{key} = {value}" for key, value in header.kept.items())]
    if header.compressed and "CompressedDataSize" not in header.kept:
        lines.append(f"CompressedDataSize = {data.size - header.data_offset}")
    lines += ["BinaryData = True", f"HeaderSize = {start}", f"ElementDataFile = {samples.name}", ""]
    described = scratch / f"volume-{data.index}.mhd"
    described.write_text("\n".join(lines), encoding="ascii")
    return described


def _as_file(data: ScanFile, path: Path) -> Path:
    """A link to a whole file, or a copy of a byte range."""
    if data.offset == 0 and data.size == data.path.stat().st_size:
        path.symlink_to(data.path.resolve())
        return path
    left = data.size
    with data.path.open("rb") as source, path.open("xb") as target:
        source.seek(data.offset)
        while left and (chunk := source.read(min(left, _CHUNK))):
            target.write(chunk)
            left -= len(chunk)
    return path


def _shaped(
    file: ScanFile, header: VolumeHeader, payload: NDArray[np.uint8], answer: dict[str, Any]
) -> NDArray[np.int16]:
    x, y, z = header.size_xyz
    if answer.get("shape") != [z, y, x] or payload.size != 2 * x * y * z:
        raise refused(file, "ITK read another size than its header says", "decode_failed")
    return payload.view(np.int16).reshape(z, y, x)


def _grid(file: ScanFile, shape_zyx: tuple[int, ...], answer: dict[str, Any]) -> Grid:
    low, high = _SPACING_RANGE_MM
    spacing = np.asarray(answer["spacing_xyz_mm"], dtype=np.float64)
    direction = np.asarray(answer["direction"], dtype=np.float64).reshape(3, 3)
    origin = np.asarray(answer["origin_lps_mm"], dtype=np.float64)
    if not ((spacing >= low) & (spacing <= high)).all() or not np.isfinite(origin).all():
        raise refused(file, f"voxel spacing must be from {low} to {high} mm", "invalid_geometry")
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise refused(file, "the directions of its axes are not perpendicular unit vectors", "invalid_geometry")
    depth, height, width = shape_zyx
    return Grid.from_spacing((depth, height, width), spacing[::-1], origin, direction[:, ::-1])
