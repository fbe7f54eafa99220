import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.inference.tiling import TilingSpec, tiles

MULTIPLE = 8
shapes = st.tuples(*(st.integers(1, 12).map(lambda n: n * MULTIPLE) for _ in range(3)))
specs = st.builds(
    TilingSpec, max_voxels=st.integers(64_000, 500_000), halo_voxels=st.integers(0, 10), multiple=st.just(MULTIPLE)
)


@given(shapes, specs)
def test_cores_partition_the_volume(shape, spec):
    owners = np.zeros(shape, int)
    for tile in tiles(shape, spec):
        core = tuple(slice(a, b) for a, b in zip(tile.core_start, tile.core_stop, strict=True))
        owners[core] += 1
    assert (owners == 1).all()


@given(shapes, specs)
def test_a_tile_is_its_core_with_the_whole_halo_or_the_end_of_the_volume(shape, spec):
    for tile in tiles(shape, spec):
        assert tile.start == tuple(max(0, s - spec.halo) for s in tile.core_start)
        assert tile.stop == tuple(min(n, s + spec.halo) for n, s in zip(shape, tile.core_stop, strict=True))


@given(shapes, specs)
def test_tiles_stay_within_the_cap_and_on_the_stride(shape, spec):
    for tile in tiles(shape, spec):
        extent = np.subtract(tile.stop, tile.start)
        assert extent.prod() <= spec.max_voxels
        assert not (np.asarray(tile.start) % MULTIPLE).any()
        assert not (extent % MULTIPLE).any()


@given(shapes, specs, st.lists(st.tuples(*[st.floats(-20, 120)] * 3), min_size=1, max_size=20))
def test_every_point_even_outside_belongs_to_exactly_one_tile(shape, spec, points):
    owned = np.sum([tile.owns(np.asarray(points)) for tile in tiles(shape, spec)], axis=0)
    assert (owned == 1).all()


@given(st.integers(1, 11))
def test_a_point_between_two_cores_belongs_to_the_upper_one(cut):
    low, high = tiles((2 * MULTIPLE, 8, 8), TilingSpec(8 * 8 * 8, 0, MULTIPLE))
    boundary = np.array([[MULTIPLE - 0.5, cut % 8, 0.0]])
    assert not low.owns(boundary)
    assert high.owns(boundary)


def test_what_fits_is_not_cut():
    (tile,) = tiles((64, 32, 16), TilingSpec(max_voxels=64 * 32 * 16, halo_voxels=8, multiple=8))
    assert (tile.start, tile.stop) == ((0, 0, 0), (64, 32, 16))


def test_the_axis_is_cut_that_costs_the_fewest_extra_voxels():
    cut = tiles((160, 32, 32), TilingSpec(max_voxels=160 * 32 * 32 - 1, halo_voxels=8, multiple=8))
    assert [(tile.core_start, tile.core_stop) for tile in cut] == [
        ((0, 0, 0), (80, 32, 32)),
        ((80, 0, 0), (160, 32, 32)),
    ]


def test_a_halo_is_rounded_up_to_the_stride():
    assert TilingSpec(max_voxels=1, halo_voxels=9, multiple=8).halo == 16


def test_a_cap_below_the_smallest_tile_is_refused_with_its_size():
    with pytest.raises(ValueError, match="below the smallest tile with its halo, 13824 voxels"):
        tiles((64, 64, 64), TilingSpec(max_voxels=13823, halo_voxels=8, multiple=8))


def test_a_shape_off_the_stride_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        tiles((64, 60, 64), TilingSpec(max_voxels=1 << 20, halo_voxels=8, multiple=8))
