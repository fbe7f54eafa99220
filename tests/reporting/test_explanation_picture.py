"""An explanation drawn and in words."""

import io

import numpy as np
import pytest
from PIL import Image

from app.imaging.preprocessing import CropSpec
from app.inference.explanation import Explanation
from app.reporting.attribute_words import attributes_in_words
from app.reporting.explanation_picture import SCALE, explanation_png

SPEC = CropSpec(size_px=16, slice_offsets_mm=(-1.0, 0.0, 1.0))


def picture_of(importance: np.ndarray, outline: np.ndarray | None = None) -> np.ndarray:
    shape = (3, 16, 16)
    crop = np.full(shape, 0.2, np.float32)
    none = np.zeros(shape, bool)
    explanation = Explanation(
        0.9, 0.2, importance, importance, crop, none if outline is None else outline, SPEC, (0.0, 0.0, 0.0)
    )
    return np.asarray(Image.open(io.BytesIO(explanation_png(explanation)))).astype(int)


def test_what_speaks_for_is_red_and_what_speaks_against_blue_where_they_are():
    importance = np.zeros((3, 16, 16), np.float32)
    importance[1, 2, 3], importance[1, 10, 12] = 1.0, -0.5
    importance[0, 8, 8] = 5.0  # another slice is not drawn
    image = picture_of(importance)
    red, green, blue = image[2 * SCALE + 2, 3 * SCALE + 2]
    assert red > green > 0
    assert red > blue
    red, _, blue = image[10 * SCALE + 2, 12 * SCALE + 2]
    assert blue > red
    grey = image[8 * SCALE + 2, 8 * SCALE + 2]
    assert grey.min() == grey.max() == 51


def test_the_outline_is_drawn_around_the_nodule():
    outline = np.zeros((3, 16, 16), bool)
    outline[1, 5:9, 5:9] = True
    image = picture_of(np.zeros((3, 16, 16), np.float32), outline)
    yellow = (image[..., 0] > 200) & (image[..., 2] < 100)
    rows, columns = np.nonzero(yellow[: 16 * SCALE])
    assert (rows.min(), rows.max(), columns.min()) == (5 * SCALE, 9 * SCALE - 1, 5 * SCALE)
    assert not yellow[7 * SCALE, 7 * SCALE]


def test_the_caption_is_there():
    image = picture_of(np.zeros((3, 16, 16), np.float32))
    assert len(image) > 16 * SCALE
    assert image[16 * SCALE :].max() > 200


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"texture": 0.0}, ("texture: ground glass",)),
        ({"texture": 0.5}, ("texture: part-solid",)),
        ({"texture": 1.0}, ("texture: solid",)),
        ({"spiculation": 0.124}, ("spiculation: none",)),
        ({"spiculation": 0.126}, ("spiculation: slight",)),
        ({"calcification": 0.99}, ("calcification: none seen",)),
        ({"calcification": 0.3, "margin": 1.0}, ("calcification: likely", "margin: sharp")),
        ({"mean_intensity": 0.4}, ()),
    ],
)
def test_attributes_in_words(attributes, words):
    assert attributes_in_words(attributes) == words
