import hashlib
import json
from pathlib import Path

import pytest

from app.imaging.errors import ModelError
from app.inference.manifest import ModelManifest, load_manifest, load_manifest_and_sha256


@pytest.fixture
def entries(tiny_model_store: Path) -> dict:
    """The tiny model's manifest, to be spoilt."""
    return json.loads((tiny_model_store / "tiny" / "1.0.0" / "manifest.json").read_text())


def spoilt(entries: dict, path: str, value: object) -> dict:
    *parents, last = path.split(".")
    entry = entries
    for parent in parents:
        entry = entry[parent]
    entry[last] = value
    return entries


def refused_field(tmp_path: Path, entries: dict) -> str:
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    with pytest.raises(ModelError) as refused:
        load_manifest(tmp_path)
    assert refused.value.code == "manifest_invalid"
    assert refused.value.values["file"] == str(tmp_path / "manifest.json")
    return refused.value.values["faults"][0]["field"]


def test_a_manifest_survives_being_written_and_read(tmp_path, entries):
    manifest = ModelManifest.model_validate(entries)
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    assert load_manifest(tmp_path) == manifest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema_version", 2),
        ("name", "Tiny Model"),
        ("version", "1.0"),
        ("preprocessing_digest", "abc"),
        ("detector.sha256", "A" * 64),
        ("detector.score_threshold", 1.5),
        ("detector.max_candidates", 0),
        ("detector.kind", "boxes-2d"),
        ("characteriser.detector_weight", -0.1),
        ("characteriser.crop.slice_offsets_mm", []),
        ("operating_points.balanced.threshold", float("nan")),
        ("malignancy.threshold", float("inf")),
        ("preprocessing.spacing_mm", 0.0),
        ("detector.bytes_per_voxel", 0.0),
        ("invented", 1),
        ("detector.invented", 1),
        ("preprocessing.invented", 1),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(tmp_path, entries, path, value):
    assert refused_field(tmp_path, spoilt(entries, path, value)) == path


@pytest.mark.parametrize("field", ["intended_use", "preprocessing", "operating_points", "provenance"])
def test_nothing_that_matters_may_be_left_out(tmp_path, entries, field):
    del entries[field]
    assert refused_field(tmp_path, entries) == field


def test_the_default_operating_point_must_exist(tmp_path, entries):
    (tmp_path / "manifest.json").write_text(json.dumps(spoilt(entries, "default_operating_point", "typo")))
    with pytest.raises(ModelError, match=r"'typo' is not in \['balanced', 'none', 'sensitive'\]"):
        load_manifest(tmp_path)


def test_the_hash_is_that_of_the_bytes_read(tmp_path, entries):
    """One space more is another identity, though the same model."""
    (tmp_path / "manifest.json").write_text(json.dumps(entries) + " ")
    manifest, sha256 = load_manifest_and_sha256(tmp_path)
    assert sha256 == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert manifest == ModelManifest.model_validate(entries)


def test_a_manifest_from_before_there_were_variants_still_loads(entries, tmp_path):
    """Version 0.1.0 was shipped without these fields."""
    for stage in ("detector", "characteriser"):
        for later in ("variants", "bytes_per_voxel"):
            entries[stage].pop(later, None)
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    manifest = load_manifest(tmp_path)
    assert (manifest.detector.variants, manifest.characteriser.variants) == ({}, {})
    assert manifest.detector.bytes_per_voxel is None
