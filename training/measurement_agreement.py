"""How far measurements agree with the truth: spheres of known size, and LIDC's outlines and ratings.

`python -m training.measurement_agreement --model model_store/lungnodule/0.2.0 --data ../shared/data` prints the tables
of docs/measurements.md. Without ``--data`` it prints those of the spheres.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocessing import CropSpec, sample_stack
from app.inference.characterisation import ask_characteriser
from app.inference.findings import Candidate, NoduleMask
from app.inference.measurements import axes_mm, long_axis_3d_mm, volume_mm3
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from app.inference.outlining import outline
from app.inference.volume_interval import volume_interval_mm3
from training.measured_nodules import MeasuredNodules, measure_lidc
from training.measurement_fit import SPICULATED_RATING, TEXTURE_KINDS
from training.metrics import bland_altman, proportion
from training.sphere_phantoms import Sphere, spheres
from training.splits import read_split

SIZES_MM = ((3.0, 6.0), (6.0, 10.0), (10.0, 31.0))
THICKNESSES_MM = ((0.0, 1.3), (1.3, 2.6), (2.6, 6.0))
KINDS = (*TEXTURE_KINDS, "calcified")
FloatArray = NDArray[np.float64]
_HEADS = (
    "diameter, mm: ideal mask",
    "network's mask",
    "3-D long axis, mm: network's mask",
    "volume, %: ideal mask",
    "network's mask",
)


@dataclass(frozen=True)
class MeasuredSphere:
    """One sphere measured with an ideal mask and with the network's."""

    truth: Sphere
    ideal: tuple[float, float, float]
    """Mean diameter in mm, 3-D long axis in mm, volume in mm3."""
    network: tuple[float, float, float]
    interval_mm3: tuple[float, float]
    was_outlined: bool


def measure_sphere(truth: Sphere, model: LoadedModel, rng: np.random.Generator) -> MeasuredSphere:
    """Measure as the service does; the candidate is a millimetre or so beside the centre, its diameter 20 % off."""
    crop = model.manifest.second_stage.crop
    center = np.asarray(truth.center_lps_mm) + rng.normal(0, 0.7, 3)
    x, y, z = (float(v) for v in center)
    candidate = Candidate((x, y, z), truth.diameter_mm * float(rng.uniform(0.8, 1.2)), 0.9)
    found, notices = outline(
        truth.volume,
        candidate,
        crop,
        lambda stack: ask_characteriser(model.characteriser, stack[None])["mask_probability"][0],
    )
    return MeasuredSphere(
        truth,
        _sizes(ideal_mask(truth, crop)),
        _sizes(found),
        volume_interval_mm3(found),
        all(notice.code != "outline_from_detector" for notice in notices),
    )


def ideal_mask(truth: Sphere, crop: CropSpec) -> NoduleMask:
    """Voxels of the service's own grid whose centres lie in the sphere; at least the nearest one."""
    _, grid = sample_stack(truth.volume, truth.center_lps_mm, truth.diameter_mm, crop)
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1).reshape(-1, 3)
    distance = np.linalg.norm(grid.to_patient(index) - truth.center_lps_mm, axis=1).reshape(grid.shape_zyx)
    return NoduleMask(np.asarray(distance <= max(truth.diameter_mm / 2, float(distance.min()))), grid)


def sphere_lines(measured: Sequence[MeasuredSphere]) -> Iterator[str]:
    """Tables of bias and 95 % limits of agreement, and the coverage of the interval."""
    heads = ("spheres", "slices, mm", "diameter, mm", "outlined", *_HEADS, "interval covers")
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for kind in ("solid", "ground_glass"):
        for thin, thick in THICKNESSES_MM:
            for low, high in SIZES_MM:
                rows = [
                    m
                    for m in measured
                    if m.truth.kind == kind
                    and thin <= m.truth.slice_spacing_mm < thick
                    and low <= m.truth.diameter_mm < high
                ]
                yield _sphere_row(kind, rows)


def _sphere_row(kind: str, rows: Sequence[MeasuredSphere]) -> str:
    seen = [m for m in rows if m.was_outlined]
    covered = [m.interval_mm3[0] <= m.truth.volume_mm3 <= m.interval_mm3[1] for m in seen]
    cells = [
        kind.replace("_", " "),
        f"{min(m.truth.slice_spacing_mm for m in rows):g} to {max(m.truth.slice_spacing_mm for m in rows):g}",
        f"{min(m.truth.diameter_mm for m in rows):g} to {max(m.truth.diameter_mm for m in rows):g}",
        f"{len(seen)} of {len(rows)}",
        limits([m.ideal[0] - m.truth.diameter_mm for m in rows], 1),
        limits([m.network[0] - m.truth.diameter_mm for m in seen], 1),
        limits([m.network[1] - m.truth.diameter_mm for m in seen], 1),
        limits([100 * (m.ideal[2] / m.truth.volume_mm3 - 1) for m in rows], 0),
        limits([100 * (m.network[2] / m.truth.volume_mm3 - 1) for m in seen], 0),
        f"{100 * float(np.mean(covered)):.0f} %" if covered else "-",
    ]
    return f"| {' | '.join(cells)} |"


def limits(differences: Sequence[float] | FloatArray, digits: int) -> str:
    """Bias and 95 % limits of agreement, e.g. ``-0.1 (-0.6 to 0.4)``."""
    if len(differences) < 2:
        return "-"
    agreement = bland_altman(differences, np.zeros(len(differences)))
    bias, low, high = (e.value for e in (agreement.bias, agreement.lower_limit, agreement.upper_limit))
    return f"{bias:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def size_lines(nodules: MeasuredNodules) -> Iterator[str]:
    """The network's outline against the readers' majority, on patients held out."""
    yield "| LIDC nodules | n | diameter, mm | 3-D long axis, mm | volume, % | interval covers the readers' volume |"
    yield "|---|---|---|---|---|---|"
    size, spacing, readers = nodules.reference_diameter_mm, nodules.slice_spacing_mm, nodules.readers
    groups = [("all", np.ones(len(size), bool))]
    groups += [(f"{a:g} to {b:g} mm", (size >= a) & (size < b)) for a, b in ((0, 6), (6, 10), (10, 60))]
    groups += [
        (f"slices {a:g} to {b:g} mm", (spacing > a) & (spacing <= b)) for a, b in ((0, 1.3), (1.3, 2.6), (2.6, 6))
    ]
    groups += [(f"outlined by {n}", readers == n) for n in (1, 2, 3, 4)]
    for name, chosen in groups:
        some = nodules.where(chosen)
        volume, reference = some.volume_mm3, some.reference_volume_mm3
        covered = (some.interval_low_mm3 <= reference) & (reference <= some.interval_high_mm3)
        share = proportion(int(covered.sum()), len(covered))
        cells = [
            name,
            str(len(volume)),
            limits(some.diameter_mm - some.reference_diameter_mm, 1),
            limits(some.long_axis_3d_mm - some.reference_long_axis_3d_mm, 1),
            limits(100 * (volume / reference - 1), 0),
            f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})",
        ]
        yield f"| {' | '.join(cells)} |"


def type_lines(nodules: MeasuredNodules) -> Iterator[str]:
    """Confusion of types, and how signs and margin fare, on patients held out."""
    yield "| readers say | n | " + " | ".join(f"said {kind.replace('_', ' ')}" for kind in KINDS) + " |"
    yield "|---|---|" + "---|" * len(KINDS)
    for kind in KINDS:
        some = nodules.where(nodules.kind == kind)
        counts = [int((some.kind_found == said).sum()) for said in KINDS]
        yield f"| {kind.replace('_', ' ')} | {len(some.patient_id)} | {' | '.join(map(str, counts))} |"
    agreed = int((nodules.kind == nodules.kind_found).sum())
    yield f"\nThe same type: {proportion(agreed, len(nodules.kind))}"
    calcified = np.array(["calcification" in signs for signs in nodules.signs_found])
    yield _found_line("calcification", calcified, nodules.kind == "calcified")
    yield _found_line("spiculation", nodules.spiculated_found, nodules.spiculation >= SPICULATED_RATING)
    fat = np.array(["fat" in signs for signs in nodules.signs_found])
    yield f"fat is said of {proportion(int(fat.sum()), len(fat))}; no reference"


def _found_line(name: str, said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str:
    hits = int((said & truth).sum())
    return (
        f"{name}: sensitivity {proportion(hits, int(truth.sum()))}, "
        f"positive predictive value {proportion(hits, int(said.sum()))}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.measurement_agreement", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of a model")
    parser.add_argument("--data", type=Path, help="folder with lidc_nodule_slices.npz")
    parser.add_argument("--fold", type=int, default=0, help="fold that the networks were not trained on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    model = load_model(args.model, SessionOptions(device="cpu", threads=1))
    rng = np.random.default_rng(args.seed)
    _print(sphere_lines([measure_sphere(truth, model, rng) for truth in spheres(args.seed)]))
    if args.data is not None:
        nodules = measure_lidc(args.data, model, read_split(args.model / "split.json").patients(args.fold))
        _print(size_lines(nodules))
        _print(type_lines(nodules))
        sys.stdout.write("Three or four readers only:\n\n")
        _print(type_lines(nodules.where(nodules.readers >= 3)))
    return 0


def _sizes(mask: NoduleMask) -> tuple[float, float, float]:
    return axes_mm(mask).mean_mm, long_axis_3d_mm(mask), volume_mm3(mask)


def _print(lines: Iterator[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
