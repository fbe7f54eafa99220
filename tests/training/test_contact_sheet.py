"""The picture of real beside inserted beside phantom nodules."""

import numpy as np

from training.contact_sheet import SIDE_MM, Tile, draw_sheet, phantom_tiles


def test_sheet_shows_each_band_sorted_by_size(tmp_path):
    rng = np.random.default_rng(0)
    tiles = [Tile(rng.normal(-800, 50, (SIDE_MM, SIDE_MM)), float(d), f"{d} mm") for d in (9, 4, 6)]
    figure = draw_sheet({"Real": tiles, "Inserted": tiles[:1]}, rng, columns=2, rows=2)
    shown = [[a.get_title() for a in part.axes] for part in figure.subfigs]
    assert shown == [["4 mm", "6 mm", "9 mm", ""], ["9 mm", "", "", ""]]
    assert all(a.images[0].get_clim() == (-1000.0, 400.0) for part in figure.subfigs for a in part.axes if a.images)
    figure.savefig(tmp_path / "sheet.png", dpi=30)
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_phantom_tiles_show_a_nodule_in_the_middle():
    tiles = phantom_tiles(2, seed=0, shape_zyx=(48, 96, 128), spacing_zyx_mm=(6.0, 3.0, 3.0))
    assert len(tiles) >= 2
    for tile in tiles:
        assert tile.hu.shape == (SIDE_MM, SIDE_MM)
        middle = slice(SIDE_MM // 2 - 2, SIDE_MM // 2 + 2)
        assert tile.hu[middle, middle].mean() > np.median(tile.hu) + 50
