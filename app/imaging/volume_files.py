"""`.mha`, `.mhd` with its `.raw`, `.nii`, `.nii.gz` and `.nrrd` as HU volumes, plane by plane.

Read by ourselves. ITK, which knows these formats too, turns NaN of a NIfTI file into 0 HU and gives made-up voxels
without a word when compressed samples are damaged or end early (measured with SimpleITK 2.5.7).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from app.imaging.acceptance import SeriesSummary
from app.imaging.errors import UnreadableScan, UploadTooLarge
from app.imaging.inputs import ScanFile
from app.imaging.metaimage import is_metaimage, metaimage_header
from app.imaging.nifti import is_nifti, nifti_header
from app.imaging.nrrd import is_nrrd, nrrd_header
from app.imaging.read_options import ReadLimits
from app.imaging.volume import CtVolume
from app.imaging.volume_header import VolumeHeader, refused

_CHUNK = 1 << 18
_LOWEST, _HIGHEST = -32768, 32767
_DETECT_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
_PARSERS = {"metaimage": metaimage_header, "nifti": nifti_header, "nrrd": nrrd_header}


@dataclass(frozen=True)
class ReadVolume:
    """A volume, what the report says of it, and the index of the file that its samples came from."""

    volume: CtVolume
    summary: SeriesSummary
    samples_file: int


def volume_format(head: bytes, name: str) -> str | None:
    """`metaimage`, `nifti`, `nrrd` or None, from the first 352 bytes; the name decides only what gzip holds."""
    if is_nrrd(head):
        return "nrrd"
    if is_metaimage(head):
        return "metaimage"
    return "nifti" if is_nifti(head, name) else None


def read_volume_file(
    file: ScanFile,
    source_format: str,
    beside: Sequence[ScanFile],
    limits: ReadLimits,
    on_progress: Callable[[float], None],
) -> ReadVolume:
    """Read one volume file.

    Parameters
    ----------
    file, source_format
        The file, and its format as `volume_format` tells it.
    beside
        Files that came with it; where an `.mhd` looks for its samples, by the sender's plain name.
    limits
        Voxels, bytes before them.
    on_progress
        Called with a fraction from the calling thread.

    Returns
    -------
    ReadVolume
        HU rounded and clamped to int16; a grid in LPS whatever the file's own convention.

    Raises
    ------
    UnsupportedFormat
        A variant that is not read: not three-dimensional, several channels, samples elsewhere.
    UploadTooLarge
        ``too_many_voxels``.
    UnreadableScan
        ``damaged_header``, ``header_too_large``, ``invalid_geometry``, ``missing_data_file``, ``truncated``,
        ``length_mismatch``, ``damaged_pixels`` or ``not_finite``.
    """
    header, data = volume_layout(file, source_format, beside, limits)
    hu = _read_samples(file, data, header, on_progress)
    return ReadVolume(CtVolume(hu, header.grid), volume_summary(header), samples_file=data.index)


def volume_layout(
    file: ScanFile, source_format: str, beside: Sequence[ScanFile], limits: ReadLimits
) -> tuple[VolumeHeader, ScanFile]:
    """What the header says, and the file that holds the samples; no sample is read.

    Raises
    ------
    UnsupportedFormat, UploadTooLarge, UnreadableScan
        As `read_volume_file`, for all that is known without the samples.
    """
    header = volume_header(file, source_format)
    voxels = math.prod(header.size_xyz)
    if voxels > limits.max_voxels:
        raise UploadTooLarge(
            f"File {file.index} says {' x '.join(map(str, header.size_xyz))} voxels; at most {limits.max_voxels} "
            "are read.",
            code="too_many_voxels",
            values={"file": file.index, "voxels": voxels, "max_voxels": limits.max_voxels},
        )
    if header.data_offset > limits.max_header_bytes:
        # What lies before the samples of a compressed file is inflated to get past it.
        raise UnreadableScan(
            f"File {file.index} says that its samples begin after {header.data_offset} bytes; at most "
            f"{limits.max_header_bytes} may come before them.",
            code="header_too_large",
            values={"file": file.index, "max_header_bytes": limits.max_header_bytes},
        )
    return header, file if header.data_name is None else _beside(file, header.data_name, beside)


def volume_summary(header: VolumeHeader) -> SeriesSummary:
    """What the report says of a volume file."""
    width, height, depth = header.size_xyz
    z, y, x = (round(float(value), 6) for value in header.grid.spacing_zyx_mm)
    return SeriesSummary(None, None, depth, height, width, spacing_zyx_mm=(z, y, x))


def volume_header(file: ScanFile, source_format: str) -> VolumeHeader:
    """Parse the header of a file whose format `volume_format` told.

    Raises
    ------
    UnreadableScan, UnsupportedFormat
    """
    try:
        return _PARSERS[source_format](file)
    except (ValueError, KeyError, IndexError, OverflowError, struct.error, zlib.error):
        fault = refused(file, "its header is damaged")
    # Not chained: the cause quotes what stands in the header.
    raise fault


def _beside(file: ScanFile, name: str, others: Sequence[ScanFile]) -> ScanFile:
    found = [other for other in others if other.name == name]
    if len(found) != 1:
        raise UnreadableScan(
            f"File {file.index} names the file with its samples, and {len(found)} files of that name came with it. "
            "Send both together, under their own names.",
            code="missing_data_file",
            values={"file": file.index, "found": len(found)},
        )
    return found[0]


def _read_samples(
    file: ScanFile, data: ScanFile, header: VolumeHeader, on_progress: Callable[[float], None]
) -> NDArray[np.int16]:
    """Samples as HU (z, y, x)."""
    present = data.size - header.data_offset
    if not header.compressed and present < header.data_bytes:
        why = f"{header.data_bytes} bytes of samples are needed, {max(0, present)} are there"
        raise refused(file, why, "truncated")
    width, height, depth = header.size_xyz
    kind = np.dtype(header.sample_type)
    hu = np.empty((depth, height, width), np.int16)
    with data.path.open("rb") as stream:
        samples = _Samples(stream, data, header)
        for z in range(depth):
            plane = np.frombuffer(samples.take(height * width * kind.itemsize), kind).reshape(height, width)
            _write_hu(file, plane, header, hu[z])
            on_progress((z + 1) / depth)
        samples.finish()
    return hu


def _write_hu(file: ScanFile, plane: NDArray[np.generic], header: VolumeHeader, out: NDArray[np.int16]) -> None:
    """Rescale, round and clamp one plane."""
    if plane.dtype.kind == "i" and plane.dtype.itemsize <= 2 and (header.slope, header.intercept) == (1.0, 0.0):
        out[...] = plane
        return
    values = plane.astype(np.float64) * header.slope + header.intercept
    if not np.isfinite(values).all():
        raise refused(file, "it has samples that are not finite numbers", "not_finite")
    out[...] = np.clip(np.rint(values), _LOWEST, _HIGHEST)


class _Samples:
    """The bytes of the samples in order, inflated when they are compressed, never more than are asked for."""

    def __init__(self, stream: BinaryIO, data: ScanFile, header: VolumeHeader) -> None:
        self._stream, self._file = stream, data
        start = 0 if header.offset_inside else header.data_offset
        stream.seek(data.offset + start)
        self._left = data.size - start
        self._engine = zlib.decompressobj(_DETECT_ZLIB_OR_GZIP) if header.compressed else None
        if header.offset_inside:
            self.take(header.data_offset)

    def take(self, count: int) -> bytearray:
        """Exactly ``count`` bytes."""
        taken = bytearray()
        while len(taken) < count:
            part = self._next(count - len(taken))
            if not part:
                raise refused(self._file, "its samples end early", "truncated")
            taken += part
        return taken

    def finish(self) -> None:
        """Inflate to the end of the stream, which checks its sum; more samples there contradict the header."""
        if self._engine is not None and self._next(1):
            raise refused(self._file, "it inflates to more samples than its header says", "length_mismatch")
        if self._engine is not None and not self._engine.eof:
            raise refused(self._file, "its samples end early", "truncated")

    def _next(self, at_most: int) -> bytes:
        if self._engine is None:
            return self._raw(at_most)
        while not self._engine.eof:
            # zlib may hold back output even when its input is used up.
            encoded = self._engine.unconsumed_tail or self._raw(_CHUNK)
            try:
                part = self._engine.decompress(encoded, at_most)
            except zlib.error:
                part = None
            if part is None:
                raise refused(self._file, "its compressed samples are damaged", "damaged_pixels")
            if part or not encoded:
                return part
        return b""

    def _raw(self, at_most: int) -> bytes:
        part = self._stream.read(min(at_most, self._left))
        self._left -= len(part)
        return part
