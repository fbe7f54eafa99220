"""Pictures of marks: the right places the right way up, told apart by LUNA16's rule, small, and readable as PNG."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from app.evaluation.froc import Mark
from app.imaging.volume import CtVolume, Grid
from training.detection_evaluation import ScanTrial
from training.inserted_scans import TrueNodule
from training.lung_background import Finding
from training.mark_pictures import (
    FALSE,
    IRRELEVANT,
    MAX_BYTES,
    NODULE,
    PIXEL_MM,
    MarkPicture,
    mark_picture,
    planes_hu,
    shown_marks,
    what_is_marked,
    write_mark_pictures,
)
from training.plots import grey_png

CENTER = (30.0, 35.0, 45.0)


def mark(x, probability, scan="scan"):
    return Mark(scan, (float(x), 0.0, 0.0), probability)


def trial(marks, truths=(), irrelevant=()):
    return ScanTrial("scan", tuple(truths), tuple(irrelevant), tuple(marks))


def noisy_volume(spacing_zyx_mm=(2.5, 0.7, 0.7), shape=(40, 100, 100)):
    rng = np.random.default_rng(0)
    return CtVolume(rng.normal(-600, 300, shape).astype(np.int16), Grid.from_spacing(shape, spacing_zyx_mm))


def decoded(png):
    return imread(io.BytesIO(png), format="png")


def volume_with_arrows(flip):
    """1 mm air with a dot at `CENTER` and dots 10 mm to the patient's left, back and head, of different HU."""
    shape = (90, 70, 60)
    direction = np.eye(3)[:, ::-1] * ([-1, -1, 1] if flip else [1, 1, 1])
    origin = (0.0, 69.0, 89.0) if flip else (0.0, 0.0, 0.0)
    grid = Grid.from_spacing(shape, (1.0, 1.0, 1.0), origin, direction)
    hu = np.full(shape, -1000, np.int16)
    for offset, value in (((0, 0, 0), 400), ((10, 0, 0), 100), ((0, 10, 0), 200), ((0, 0, 10), 300)):
        z, y, x = np.rint(grid.to_index(np.add(CENTER, offset))).astype(int)
        hu[z, y, x] = value
    return CtVolume(hu, grid)


@pytest.mark.parametrize("flip", [False, True])
def test_planes_show_left_back_and_head_where_a_reader_looks_for_them(flip):
    axial, coronal, sagittal = planes_hu(volume_with_arrows(flip), CENTER)
    middle, step = len(axial) // 2, round(10 / PIXEL_MM)
    for plane in (axial, coronal, sagittal):
        assert plane[middle, middle] == 400
    assert axial[middle, middle + step] == coronal[middle, middle + step] == 100
    assert axial[middle + step, middle] == sagittal[middle, middle + step] == 200
    assert coronal[middle - step, middle] == sagittal[middle - step, middle] == 300


def test_outside_the_scan_is_air():
    volume = CtVolume(np.zeros((20, 20, 20), np.int16), Grid.from_spacing((20, 20, 20)))
    assert (planes_hu(volume, (200.0, 0.0, 0.0)) == -1024).all()


def test_marks_are_told_apart_by_a_strict_radius_and_a_nodule_comes_first():
    nodule = TrueNodule((0.0, 0.0, 0.0), 8.0, "annotated", "", float("nan"), 4)
    scan = trial([], [nodule], [Finding((3.0, 0.0, 0.0), 4.0), Finding((20.0, 0.0, 0.0), 4.0)])
    for x, what in ((3.9, NODULE), (4.0, IRRELEVANT), (5.0, FALSE), (21.9, IRRELEVANT), (22.0, FALSE)):
        assert what_is_marked(scan, mark(x, 0.5)) == what


def test_marks_from_the_threshold_on_are_shown_by_falling_probability_or_else_the_best_three():
    marks = [mark(x, p) for x, p in ((0, 0.2), (1, 0.9), (2, 0.5), (3, 0.4), (4, 0.1))]
    assert [m.probability for m in shown_marks(trial(marks), 0.5)] == [0.9, 0.5]
    assert [m.probability for m in shown_marks(trial(marks), 0.95)] == [0.9, 0.5, 0.4]
    assert len(shown_marks(trial([mark(x, 0.8) for x in range(30)]), 0.5)) == 12


def test_a_full_picture_of_the_noisiest_scan_is_small_grey_and_has_a_row_for_each_mark():
    """White noise packs worse than any scan does."""
    volume = noisy_volume()
    one, twelve = (mark_picture(volume, trial([mark(10 + x, 0.9) for x in range(n)]), 0.5, fold=2) for n in (1, 14))
    assert one.name == "marks-fold2-scan"
    assert len(twelve.png) <= MAX_BYTES
    first, whole = decoded(one.png), decoded(twelve.png)
    assert first.ndim == whole.ndim == 2
    side = round(50 / PIXEL_MM)
    assert whole.shape[0] - first.shape[0] == pytest.approx(11 * side, abs=11 * 6)
    assert "14 marks" in twelve.caption
    assert "first 12 shown" in twelve.caption


def test_the_views_of_the_picture_are_the_planes():
    volume = noisy_volume()
    png = mark_picture(volume, trial([mark(30, 0.9)]), 0.5, fold=0).png
    axial = np.clip((planes_hu(volume, (30.0, 0.0, 0.0))[0] + 1000) / 1400, 0, 1)
    inner = axial[10:-10, 10:-10]
    pixels = decoded(png)
    distances = [
        np.abs(pixels[top + 10 : top + 90, 10:90] - inner).mean() for top in range(pixels.shape[0] - len(axial) + 1)
    ]
    assert min(distances) < 0.02


def test_where_nothing_reaches_the_threshold_the_caption_says_so():
    picture = mark_picture(noisy_volume(), trial([mark(10, 0.2)]), 0.5, fold=0)
    assert "No mark reaches the default threshold of 0.500" in picture.caption


def test_files_are_named_after_the_pictures(tmp_path):
    paths = write_mark_pictures(tmp_path / "pictures", [MarkPicture("a", b"1", ""), MarkPicture("b", b"2", "")])
    assert [(path.name, path.read_bytes()) for path in paths] == [("a.png", b"1"), ("b.png", b"2")]


def test_a_picture_that_cannot_be_made_small_enough_is_refused():
    with pytest.raises(ValueError, match="at most 40 are allowed"):
        grey_png(Figure(figsize=(1, 1), facecolor="black"), 40)
