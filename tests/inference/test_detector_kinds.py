"""Detectors by manifest alone: a heat map, the heads of an anchor-based network, and one without a second stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.imaging.acceptance import AcceptanceReport, SeriesSummary
from app.imaging.errors import ModelError, NoCharacteriser
from app.inference.characterisation import malignancy_at
from app.inference.detection import detect, max_voxels_within, window_notices
from app.inference.explanation import explain
from app.inference.model_store import LoadedModel, load_model, verify_model, warm_up
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse_volume
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.nodules import NoduleSpec
from tests.tiny_kinds import (
    HEADS,
    HEAT_MAP,
    SHIFT,
    SIDE,
    tiny_heads_detector,
    tiny_heat_map_detector,
    write_detector_only,
)
from tests.tiny_model import tiny_detector

BALLS = [(10, 12, 14), (24, 20, 40), (26, 40, 32), (40, 46, 54), (32, 32, 8)]
"""On cells of both maps' strides' sum, some near borders that tiles and windows will have."""
ACCEPTED = AcceptanceReport("metaimage", 1, (), SeriesSummary(None, "CT", 100))
SESSION = SessionOptions(device="cpu", threads=1)
ENTRIES = {
    "boxes-3d": (tiny_detector, {"score_threshold": 0.5, "halo_voxels": 16}),
    "heat-map": (tiny_heat_map_detector, HEAT_MAP),
    "retinanet-heads": (tiny_heads_detector, HEADS),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """A detector-only model of each kind, as a service would open it."""
    store = tmp_path_factory.mktemp("store")
    models = {}
    for kind, (graph, entry) in ENTRIES.items():
        folder = write_detector_only(store, graph(), entry, name=kind)
        verify_model(folder)
        models[kind] = load_model(folder, SESSION)
        warm_up(models[kind])
    return models


@pytest.fixture(scope="module")
def phantom() -> PhantomCt:
    nodules = [NoduleSpec(diameter_mm=diameter) for diameter in (9.0, 12.0, 15.0)]
    return phantom_ct(shape_zyx=(80, 140, 140), spacing_zyx_mm=(3.75, 2.5, 2.5), nodules=nodules, seed=3)


def boxes_of(candidates, grid):
    """(n, 6) corners in index coordinates, by centre."""
    corners = [grid.to_index(c.box_corners_lps_mm).ravel() for c in candidates]
    return np.array(sorted(map(tuple, np.round(corners, 4))))


def expected_boxes(centers, sides):
    half = np.asarray(sides) / 2
    return np.array(sorted(tuple(np.r_[np.asarray(c) - half, np.asarray(c) + half]) for c in centers))


def test_a_heat_map_is_decoded_with_its_sizes_and_offsets(alone, prepared_with):
    prepared = prepared_with(BALLS)
    found = boxes_of(detect(prepared, alone["heat-map"]), prepared.grid)
    assert found == pytest.approx(expected_boxes(np.add(BALLS, (0, 0, 0.5)), [SIDE] * 3), abs=1e-3)


def test_anchors_are_decoded_with_shift_and_growth_along_their_axes(alone, prepared_with):
    prepared = prepared_with(BALLS)
    found = boxes_of(detect(prepared, alone["retinanet-heads"]), prepared.grid)
    expected = expected_boxes(np.add(BALLS, (2 * SHIFT, 0, -8 * SHIFT)), (4.0, 4.0, 8.0))
    assert found == pytest.approx(np.clip(expected, 0, None), abs=1e-3)


@pytest.mark.parametrize("kind", ["heat-map", "boxes-3d"])
def test_tiles_give_what_one_pass_gives(alone, prepared_with, kind):
    prepared = prepared_with(BALLS)
    seen = []
    tiled = detect(prepared, alone[kind], lambda _fraction, detail: seen.append(detail), max_voxels=110_000)
    assert len(seen) > 2
    whole = boxes_of(detect(prepared, alone[kind]), prepared.grid)
    assert boxes_of(tiled, prepared.grid) == pytest.approx(whole, abs=1e-6)


def test_a_memory_bound_makes_windows_smaller_and_says_so(alone, prepared_with):
    model, prepared = alone["retinanet-heads"], prepared_with(BALLS)
    bound = 40 * 40 * 40
    seen = []
    detect(prepared, model, lambda _fraction, detail: seen.append(detail), max_voxels=bound)
    assert len(seen) > 8
    (notice,) = window_notices(model, bound)
    assert np.prod(notice.values["window_zyx"]) <= bound
    assert notice.values["made_for_zyx"] == [200, 200, 200]
    assert window_notices(model, max_voxels_within(model, None)) == ()
    with pytest.raises(ModelError, match="smallest window") as refused:
        detect(prepared, model, max_voxels=63)
    assert refused.value.code == "tile_too_small"


def test_boxes_outside_the_lungs_are_kept_only_where_the_manifest_says_so(alone, prepared_with):
    nowhere = np.zeros((48, 56, 64), np.bool_)
    prepared = prepared_with(BALLS, in_lungs=nowhere)
    model = alone["retinanet-heads"]
    assert detect(prepared, model) == []
    everywhere = model.manifest.model_copy(
        update={"detector": model.manifest.detector.model_copy(update={"within_lungs": False})}
    )
    assert len(detect(prepared, replace(model, manifest=everywhere))) == len(BALLS)


def test_maps_of_other_shapes_than_the_manifest_names_are_refused(tmp_path: Path):
    wrong = json.loads(json.dumps(HEADS))
    wrong["levels"][1]["sizes_zyx"].append([20.0] * 3)
    model = load_model(write_detector_only(tmp_path, tiny_heads_detector(), wrong), SESSION)
    with pytest.raises(ModelError, match="3 anchors a cell") as refused:
        warm_up(model)
    assert refused.value.code == "network_contract"


@pytest.mark.parametrize("kind", ["heat-map", "retinanet-heads"])
def test_a_graph_without_the_promised_outputs_is_refused(tmp_path: Path, kind: str):
    folder = write_detector_only(tmp_path, tiny_detector(), ENTRIES[kind][1])
    with pytest.raises(ModelError) as refused:
        load_model(folder, SESSION)
    assert refused.value.code == "network_contract"


@pytest.mark.parametrize("kind", list(ENTRIES))
def test_a_detector_alone_tells_boxes_and_nothing_that_needs_an_outline(alone, phantom, kind):
    findings = analyse_volume(phantom.volume, ACCEPTED, alone[kind], AnalysisOptions(keep_trace=True))
    for truth in phantom.nodules:
        near = [
            nodule
            for nodule in findings.nodules
            if np.linalg.norm(np.subtract(nodule.center_lps_mm, truth.center_lps_mm)) < 12
        ]
        assert near, truth
        nodule = near[0]
        assert (nodule.malignancy_probability, nodule.label, nodule.volume_mm3, nodule.mask) == (None,) * 4
        assert nodule.short_axis_mm <= nodule.diameter_mm <= nodule.long_axis_mm <= nodule.long_axis_3d_mm
        low, high = np.asarray(nodule.box_lps_mm)
        assert (low < nodule.center_lps_mm).all()
        assert (nodule.center_lps_mm < high).all()
        assert nodule.slices
        assert nodule.side == ("left" if truth.center_lps_mm[0] > 0 else "right")
    assert "detector only" in findings.malignancy_meaning
    assert "characterise" not in findings.timings_s
    assert all(c.probability < findings.operating_point.threshold for c in findings.trace.faint)


def test_what_only_a_second_stage_tells_is_refused(alone, phantom):
    model = alone["boxes-3d"]
    with pytest.raises(NoCharacteriser, match="has a detector only"):
        malignancy_at(phantom.volume, [phantom.nodules[0].center_lps_mm], model)
    with pytest.raises(NoCharacteriser):
        explain(phantom.volume, phantom.nodules[0].center_lps_mm, 10.0, model)
    with pytest.raises(NoCharacteriser):
        model.characteriser({})


def test_a_manifest_has_a_second_stage_with_its_malignancy_or_neither(tmp_path: Path):
    folder = write_detector_only(tmp_path, tiny_detector(), ENTRIES["boxes-3d"][1])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["malignancy"] = {"meaning": "nobody's"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="both are there, or neither"):
        verify_model(folder)
