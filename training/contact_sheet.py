"""Real, inserted and phantom nodules side by side: ``python -m training.contact_sheet --output PICTURE.png``.

Every tile is an axial slice of 40 x 40 mm at 1 mm through a nodule's centre, window -1000..400 HU, sorted by diameter.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from app.imaging.preprocessing import CropSpec, sample_crops
from app.phantom.chest import phantom_ct
from training.hu_calibration import PATCH_HU_PER_GREY, PATCH_LOW_HU
from training.insertion import populate
from training.lung_background import prepare_background
from training.nodule_bank import NoduleBank, load_nodule_bank

SIDE_MM = 40
WINDOW_HU = (-1000.0, 400.0)
SCANS = ("LIDC-IDRI-0002.mha", "LIDC-IDRI-0028.mha", "LIDC-IDRI-0306.mha")
NODULES_PER_SCAN = 12
LEAST_CONTRAST_HU = 100.0


@dataclass(frozen=True)
class Tile:
    """One picture: HU (SIDE_MM, SIDE_MM), and what it is called."""

    hu: NDArray[np.floating]
    diameter_mm: float
    label: str


def real_tiles(data: Path) -> list[Tile]:
    """LUNA16 candidates on annotated nodules, one for each nodule; HU are known."""
    with (data / "luna16" / "annotations.csv").open() as rows:
        annotations = list(csv.DictReader(rows))
    with np.load(data / "luna16_axial_patches.npz") as stored:
        patches, series, uids = stored["patches"], stored["series"], stored["series_uid"]
        spacing, centers = stored["pixel_spacing_mm"], stored["center_xyz_mm"]
    members = {str(uid): np.flatnonzero(series == i) for i, uid in enumerate(uids)}
    tiles = []
    for row in annotations:
        mine = members.get(row["seriesuid"], np.empty(0, np.intp))
        if not len(mine):
            continue
        place = np.asarray([float(row[k]) for k in ("coordX", "coordY", "coordZ")])
        away = np.linalg.norm(centers[mine] - place, axis=1)
        nearest, diameter = int(mine[away.argmin()]), float(row["diameter_mm"])
        if away.min() < min(2.0, diameter / 4):
            hu = patches[nearest].astype(np.float64) * PATCH_HU_PER_GREY + PATCH_LOW_HU
            pixels = hu.shape[0] // 2 + (np.arange(SIDE_MM) - SIDE_MM // 2) / float(spacing[series[nearest]])
            plane = ndimage.map_coordinates(hu, np.meshgrid(pixels, pixels, indexing="ij"), order=1, mode="nearest")
            tiles.append(Tile(plane, diameter, f"{diameter:.0f} mm"))
    return tiles


def inserted_tiles(data: Path, bank: NoduleBank, scans: Iterable[str], rng: np.random.Generator) -> list[Tile]:
    """Nodules of the bank in lungs of the scans."""
    tiles = []
    half = SIDE_MM // 2
    for scan in scans:
        background = prepare_background(data / "ct" / scan, data)
        hu, nodules = populate(background, bank, NODULES_PER_SCAN, rng)
        wide = np.pad(hu, half, constant_values=WINDOW_HU[0])
        for nodule in nodules:
            if nodule.contrast_hu >= LEAST_CONTRAST_HU:
                z, y, x = (round(c) for c in nodule.center_zyx)
                plane = wide[z + half, y : y + SIDE_MM, x : x + SIDE_MM]
                tiles.append(Tile(plane, nodule.diameter_mm, f"{nodule.diameter_mm:.0f} mm, {nodule.site}"))
    return tiles


def phantom_tiles(
    count: int,
    seed: int,
    *,
    shape_zyx: tuple[int, int, int] = (128, 256, 360),
    spacing_zyx_mm: tuple[float, float, float] = (2.0, 1.0, 1.0),
) -> list[Tile]:
    """Nodules of synthetic chests, at least ``count``."""
    spec = CropSpec(spacing_mm=1.0, size_px=SIDE_MM, slice_offsets_mm=(0.0,), window_hu=WINDOW_HU)
    tiles: list[Tile] = []
    while len(tiles) < count:
        made = phantom_ct(
            shape_zyx=shape_zyx, spacing_zyx_mm=spacing_zyx_mm, nodule_count=min(count, 12), seed=seed + len(tiles)
        )
        planes = sample_crops(made.volume, [n.center_lps_mm for n in made.nodules], spec)[:, 0]
        low, high = WINDOW_HU
        tiles += [
            Tile(p * (high - low) + low, n.diameter_mm, f"{n.diameter_mm:.0f} mm")
            for p, n in zip(planes, made.nodules, strict=True)
        ]
    return tiles


def draw_sheet(bands: dict[str, list[Tile]], rng: np.random.Generator, *, columns: int = 12, rows: int = 2) -> Figure:
    """One band for each kind of source, its tiles drawn at random and sorted by diameter."""
    mpl.rcParams["font.size"] = 6
    figure = Figure(figsize=(columns * 1.05, len(bands) * rows * 1.22), layout="constrained")
    parts = figure.subfigures(len(bands), 1, squeeze=False).ravel()
    for part, (name, tiles) in zip(parts, bands.items(), strict=True):
        part.suptitle(name, fontsize=8, x=0.01, ha="left")
        chosen = [tiles[i] for i in rng.permutation(len(tiles))[: rows * columns]]
        chosen.sort(key=lambda tile: tile.diameter_mm)
        for axes, tile in zip(
            part.subplots(rows, columns).ravel(), chosen + [None] * (rows * columns - len(chosen)), strict=True
        ):
            axes.axis("off")
            if tile is not None:
                axes.imshow(tile.hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], interpolation="nearest")
                axes.set_title(tile.label, pad=2)
    return figure


def main() -> None:
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with ct/ and luna16/")
    parser.add_argument("--bank", type=Path, help="bank file to read, or to write after making the bank")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    bank = load_nodule_bank(arguments.data, cache=arguments.bank)
    bands = {
        "Real: LUNA16 nodules, all vendors": real_tiles(arguments.data),
        "Inserted: LIDC nodules in lungs of LIDC-IDRI-0002, -0028, -0306": inserted_tiles(
            arguments.data, bank, SCANS, rng
        ),
        "Phantom: lungs, vessels and nodules all synthetic": phantom_tiles(24, arguments.seed),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(bands, rng).savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
