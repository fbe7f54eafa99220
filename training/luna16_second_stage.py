"""What the second stage learns from a whole LUNA16 scan: candidates as the service sees them, outlined nodules.

Candidates are crops of as many slices as the service reads, at the positions of `candidates_V2.csv` and at the
annotated centres. Nodules come from LIDC's outlines, drawn on this very scan: HU are the scan's own, and slices above
and below a nodule show where its mask ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.evaluation.reference import Luna16Error
from app.imaging.preprocessing import CropSpec, sample_crops
from app.imaging.volume import CtVolume
from training.consensus import group_outlines, reader_masks
from training.crops import CACHE_SIZE_PX, CandidatePatches
from training.inserted_stacks import BEYOND_MM, InsertedStacks
from training.lidc import LidcError, LidcNodule, LidcScan
from training.luna16 import Luna16Case
from training.luna16_scans import centers_lps_mm, false_candidates_lps_mm, hits
from training.nodule_bank import MAX_DIAMETER_MM, MIN_READERS, NoduleBank
from training.nodule_blocks import nodule_from_stack, nodule_kind
from training.nodule_stacks import READERS, NoduleStacks

RATINGS = ("NumAnnotations", "Malignancy", "Texture", "Spiculation", "Lobulation", "Margin", "Calcification")
_MASK_WINDOW = (0.0, 100.0)

Crops = NDArray[np.uint8]


@dataclass(frozen=True)
class ScanCrops:
    """One scan's share; slices of all its nodules in one array each.

    Parameters
    ----------
    candidates
        uint8 (n, s, CACHE_SIZE_PX, CACHE_SIZE_PX).
    nodule
        (n,) number of the scan's nodule that the candidate hits; -1 for none.
    slices, reader_fraction, slice_count
        Outlined nodules as in `training.nodule_stacks`, and how many slices each has.
    ratings
        float32 (k, r), columns `RATINGS`.
    beyond, beyond_mask, beyond_count
        The same nodules 1 mm by 1 mm, with lung above and below, and the majority's mask.
    """

    candidates: Crops
    nodule: NDArray[np.int64]
    slices: Crops
    reader_fraction: Crops
    slice_count: NDArray[np.int64]
    ratings: NDArray[np.float32]
    beyond: Crops
    beyond_mask: Crops
    beyond_count: NDArray[np.int64]
    spacing_mm: NDArray[np.float32]
    """(2,) between slices and between pixels of the scan."""


@dataclass(frozen=True)
class SecondStageData:
    """Every part of what `training.train_characteriser` takes."""

    patches: CandidatePatches
    stacks: NoduleStacks
    beyond: InsertedStacks


def crops_path(folder: Path, series_uid: str, false_candidates: int) -> Path:
    """A scan's crops in the cache."""
    return folder / f"{series_uid}.crops-{false_candidates}.npz"


def cache_crops(
    case: Luna16Case, volume: CtVolume, outlines: LidcScan, spec: CropSpec, false_candidates: int, folder: Path
) -> None:
    """Cut and store a scan's crops."""
    wide = spec.model_copy(update={"size_px": CACHE_SIZE_PX})
    candidates, nodule = _candidates(case, volume, wide, false_candidates)
    nodules = [_outlined(found, volume, wide) for found in group_outlines(outlines) if found.n_outlines <= READERS]
    found = [each for each in nodules if each is not None]
    none = np.zeros((0, CACHE_SIZE_PX, CACHE_SIZE_PX), np.uint8)
    slices, fraction, beyond, mask = (
        np.concatenate([none, *(getattr(each, name) for each in found)])
        for name in ("slices", "reader_fraction", "beyond", "beyond_mask")
    )
    spacing = volume.grid.spacing_zyx_mm
    path = crops_path(folder, case.series_uid, false_candidates)
    half_written = path.with_name(f".{path.name}.part")
    with half_written.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            candidates=candidates,
            nodule=nodule,
            slices=slices,
            reader_fraction=fraction,
            slice_count=np.array([len(each.slices) for each in found], dtype=np.int64),
            ratings=np.array([each.ratings for each in found], dtype=np.float32).reshape(-1, len(RATINGS)),
            beyond=beyond,
            beyond_mask=mask,
            beyond_count=np.array([len(each.beyond) for each in found], dtype=np.int64),
            spacing_mm=np.array([spacing[0], spacing[2]], dtype=np.float32),
        )
    half_written.replace(path)


def load_crops(cases: Sequence[Luna16Case], folder: Path, false_candidates: int) -> SecondStageData:
    """The crops of these scans, all in memory."""
    parts = []
    for case in cases:
        with np.load(crops_path(folder, case.series_uid, false_candidates)) as stored:
            parts.append(ScanCrops(**dict(stored)))
    return SecondStageData(_patches(cases, parts), _stacks(cases, parts), _beyond(parts))


def bank_of(stacks: NoduleStacks, spec: CropSpec) -> NoduleBank:
    """The outlined nodules as a bank to insert from; those of few readers or too large are left out."""
    low, high = spec.window_hu
    nodules = []
    for n in np.flatnonzero(stacks.rating("NumAnnotations") >= MIN_READERS):
        rows = slice(int(stacks.first_slice[n]), int(stacks.first_slice[n] + stacks.slice_count[n]))
        hu = stacks.crops[rows].astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        readers = int(stacks.rating("NumAnnotations")[n])
        outline = stacks.reader_fraction[rows].astype(np.float32) / 255 * READERS / readers >= 0.499
        nodule = nodule_from_stack(hu, outline, (float(stacks.slice_spacing_mm[n]), spec.spacing_mm))
        if nodule is None or nodule.diameter_mm > MAX_DIAMETER_MM:
            continue
        rating = {name: float(stacks.rating(name)[n]) for name in RATINGS}
        nodules.append(
            replace(
                nodule,
                kind=nodule_kind(rating["Texture"], rating["Calcification"]),
                patient_id=str(stacks.patient_id[n]),
                series_uid=str(stacks.series_uid[n]),
                malignancy=rating["Malignancy"],
                spiculation=rating["Spiculation"],
                readers=readers,
            )
        )
    return NoduleBank(tuple(nodules))


def _candidates(
    case: Luna16Case, volume: CtVolume, wide: CropSpec, false_candidates: int
) -> tuple[Crops, NDArray[np.int64]]:
    """Annotated centres, candidates that hit a nodule, and a fixed choice of the false ones."""
    places = np.array([c.center_lps_mm for c in case.candidates]).reshape(-1, 3)
    hit = hits(places, case.nodules)
    hitting = hit.any(axis=1)
    false = false_candidates_lps_mm(case)
    seed = int.from_bytes(hashlib.sha256(case.series_uid.encode()).digest()[:8], "big")
    chosen = np.random.default_rng(seed).permutation(len(false))[:false_candidates]
    centers = np.concatenate([centers_lps_mm(case.nodules), places[hitting], false[chosen]])
    number = np.concatenate([np.arange(len(case.nodules)), hit[hitting].argmax(axis=1) if hitting.any() else []])
    nodule = np.concatenate([number, np.full(len(chosen), -1)]).astype(np.int64)
    return _bytes(sample_crops(volume, centers, wide)), nodule


@dataclass(frozen=True)
class _Outlined:
    slices: Crops
    reader_fraction: Crops
    ratings: tuple[float, ...]
    beyond: Crops
    beyond_mask: Crops


def _outlined(found: LidcNodule, volume: CtVolume, wide: CropSpec) -> _Outlined | None:
    """One nodule through the middle of its outlines; None where no reader's outline has an inside."""
    counted = _reader_count(found, volume)
    if counted is None:
        return None
    count, start = counted
    centre = np.argwhere(count * 2 >= found.n_outlines).mean(axis=0) + start
    center_lps_mm = volume.grid.to_patient(centre)
    head = float(np.sign(volume.grid.direction_lps_zyx[2, 0]))
    step_mm = float(volume.grid.spacing_zyx_mm[0])
    planes = np.flatnonzero(count.any(axis=(1, 2))) + start[0]
    offsets = np.sort((planes - centre[0]) * step_mm * head)
    all_mm = tuple(np.arange(np.floor(offsets[0]) - BEYOND_MM, np.ceil(offsets[-1]) + BEYOND_MM + 1.0))
    binary = wide.model_copy(update={"window_hu": _MASK_WINDOW})
    share, majority = (
        _mask_volume(values, start, volume)
        for values in (count * np.int16(100 // READERS), (count * 2 >= found.n_outlines) * np.int16(100))
    )
    return _Outlined(
        slices=_bytes(sample_crops(volume, center_lps_mm, wide, slice_offsets_mm=tuple(offsets)))[0],
        reader_fraction=_bytes(sample_crops(share, center_lps_mm, binary, slice_offsets_mm=tuple(offsets)))[0],
        ratings=(float(found.n_outlines), *(found.mean_rating(name.lower()) for name in RATINGS[1:])),
        beyond=_bytes(sample_crops(volume, center_lps_mm, wide, slice_offsets_mm=all_mm))[0],
        beyond_mask=_bytes(sample_crops(majority, center_lps_mm, binary, slice_offsets_mm=all_mm))[0],
    )


def _reader_count(found: LidcNodule, volume: CtVolume) -> tuple[NDArray[np.int16], NDArray[np.int64]] | None:
    """Readers covering each voxel of a box of the scan, and the box's first voxel (z, y, x).

    LIDC's pixels are those of the published ``.mhd``: neither was ever resampled or reordered in-plane.
    """
    try:
        masks = reader_masks(found)
    except LidcError:
        return None  # a contour between slices: the shape is not to be trusted
    count = masks.masks.sum(axis=0, dtype=np.int16)
    if not (count * 2 >= found.n_outlines).any():
        return None
    _, y, x = masks.start_zyx
    planes = _slices_of(found.scan, masks.start_zyx[0] + np.arange(len(count)), volume)
    depth, height, width = volume.hu.shape
    if planes.min() < 0 or planes.max() >= depth or y + count.shape[1] > height or x + count.shape[2] > width:
        raise Luna16Error(f"series {found.scan.series_uid}: LIDC's outlines lie outside the scan; unpack it again")
    first = int(planes.min())
    placed = np.zeros((int(planes.max()) - first + 1, *count.shape[1:]), np.int16)
    for plane, values in zip(planes, count, strict=True):
        placed[plane - first] = np.maximum(placed[plane - first], values)
    return placed, np.array([first, y, x])


def _slices_of(scan: LidcScan, slice_numbers: NDArray[np.int64], volume: CtVolume) -> NDArray[np.int64]:
    """Index in the volume of LIDC's slices, which are counted by rising z."""
    depth = volume.hu.shape[0]
    rising = volume.grid.direction_lps_zyx[2, 0] > 0
    if len(scan.slice_z_mm) == depth:
        return np.asarray(slice_numbers if rising else depth - 1 - slice_numbers)
    z_mm = np.asarray(scan.slice_z_mm)[slice_numbers]
    x, y = volume.grid.origin_lps_mm[:2]
    points = np.stack([np.full(len(z_mm), x), np.full(len(z_mm), y), z_mm], axis=1)
    return np.rint(volume.grid.to_index(points)[:, 0]).astype(np.int64)


def _mask_volume(values: NDArray[np.int16], start: NDArray[np.int64], volume: CtVolume) -> CtVolume:
    """A box of the scan with one empty voxel around it, so that nothing is carried on beyond its faces."""
    padded = np.pad(values.astype(np.int16), 1)
    return CtVolume(padded, volume.grid.cropped(start - 1, (padded.shape[0], padded.shape[1], padded.shape[2])))


def _bytes(crops: NDArray[np.float32]) -> Crops:
    return np.rint(crops * 255).astype(np.uint8)


def _patches(cases: Sequence[Luna16Case], parts: Sequence[ScanCrops]) -> CandidatePatches:
    first = np.cumsum([0, *(len(case.nodules) for case in cases)])
    key = np.concatenate(
        [np.where(part.nodule >= 0, part.nodule + n, -1) for part, n in zip(parts, first, strict=False)]
    )
    counts = [len(part.nodule) for part in parts]
    return CandidatePatches(
        np.concatenate([part.candidates for part in parts]),
        key >= 0,
        key,
        np.repeat([case.patient_id for case in cases], counts),
        np.repeat([case.series_uid for case in cases], counts),
    )


def _stacks(cases: Sequence[Luna16Case], parts: Sequence[ScanCrops]) -> NoduleStacks:
    count = np.concatenate([part.slice_count for part in parts])
    of_scan = [len(part.slice_count) for part in parts]
    return NoduleStacks(
        crops=np.concatenate([part.slices for part in parts]),
        reader_fraction=np.concatenate([part.reader_fraction for part in parts]),
        first_slice=np.cumsum(count) - count,
        slice_count=count,
        slice_spacing_mm=np.repeat([part.spacing_mm[0] for part in parts], of_scan),
        pixel_spacing_mm=np.repeat([part.spacing_mm[1] for part in parts], of_scan),
        patient_id=np.repeat([case.patient_id for case in cases], of_scan),
        series_uid=np.repeat([case.series_uid for case in cases], of_scan),
        ratings=np.concatenate([part.ratings for part in parts]),
        rating_names=RATINGS,
    )


def _beyond(parts: Sequence[ScanCrops]) -> InsertedStacks:
    count = np.concatenate([part.beyond_count for part in parts])
    return InsertedStacks(
        np.concatenate([part.beyond for part in parts]),
        np.concatenate([part.beyond_mask for part in parts]),
        np.cumsum(count) - count,
        count,
    )
