"""The images that were analysed, read again when a form of the result needs them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydicom.dataset import Dataset

from app.imaging.errors import UnreadableScan
from app.imaging.identity import Identity
from app.imaging.inputs import Source
from app.imaging.original_headers import read_original_headers
from app.imaging.read_options import ReadLimits, ReadOptions
from app.imaging.reading import read_ct
from app.imaging.volume import CtVolume
from app.inference.findings import Findings
from app.reporting.reference_images import reference_image


@dataclass(frozen=True)
class Originals:
    """The files of a scan, as they were sent.

    Parameters
    ----------
    files
        As `app.imaging.reading.read_ct` takes them.
    findings
        What was found in them: says which series and which images.
    limits
        Those that the scan was read under.
    scratch_root
        Where what has to be inflated is put for a moment; None takes the system's folder.
    """

    files: Source | Sequence[Source]
    findings: Findings
    limits: ReadLimits = field(default_factory=ReadLimits)
    scratch_root: Path | None = None
    whose: Identity | None = None
    """Of de-identified files: `image`, `images` and `slice_uid` then speak of the images as they were before."""

    @property
    def is_dicom(self) -> bool:
        """Whether there are images to refer to."""
        return self.findings.identity is not None and bool(self.findings.identity.slices)

    @cached_property
    def volume(self) -> CtVolume:
        """The voxels once more, with the repairs that the analysis made.

        Raises
        ------
        ScanError
            The files are no longer what was analysed.
        """
        identity = self.findings.identity
        options = ReadOptions(
            series_uid=identity.series_instance_uid if identity else None,
            limits=self.limits,
            allow_repairs=frozenset(notice.code for notice in self.findings.acceptance.repairs),
            scratch_root=self.scratch_root,
        )
        volume, _ = read_ct(self.files, options)
        if volume.grid.shape_zyx != self.findings.grid.shape_zyx:
            raise _another_scan()
        return volume

    @cached_property
    def images(self) -> dict[str, Dataset]:
        """Headers of the first image and of every image that shows a nodule, by SOPInstanceUID; see `reference_image`.

        Raises
        ------
        ScanError
            The files are no longer what was analysed.
        """
        wanted = {self._stored_uid(z) for z in (0, *self._slices_with_nodules())}
        with tempfile.TemporaryDirectory(prefix="lungnodule-headers-", dir=self.scratch_root) as folder:
            found = read_original_headers(self.files, wanted, self.limits, Path(folder))
        if set(found) != wanted:
            raise _another_scan()
        if self.whose is not None:
            found = {self.whose.uid(uid): self.whose.restored(header) for uid, header in found.items()}
        return {uid: reference_image(header) for uid, header in found.items()}

    def image(self, z: int) -> Dataset:
        """Header of the image that slice ``z`` of the volume came from."""
        return self.images[self.slice_uid(z)]

    def slice_uid(self, z: int) -> str:
        """SOPInstanceUID of the image that slice ``z`` of the volume came from."""
        return self._stored_uid(z) if self.whose is None else self.whose.uid(self._stored_uid(z))

    def _stored_uid(self, z: int) -> str:
        return self.findings.identity.slices[z].sop_instance_uid if self.findings.identity else ""

    def _slices_with_nodules(self) -> Iterable[int]:
        return {box.index_z for nodule in self.findings.nodules for box in nodule.slices}


def _another_scan() -> UnreadableScan:
    return UnreadableScan(
        "The files are not those that were analysed: images of the series are missing. Send the series again.",
        code="originals_changed",
    )
