"""An imported bundle gives the boxes that MONAI's own pipeline gives, for the same weights and the same scan."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from starlette.testclient import TestClient

from app.imaging.preprocessing import preprocess
from app.imaging.reading import read_ct
from app.inference.detection import detect
from app.inference.detector_kinds import WindowRule
from app.inference.model_store import LoadedModel, load_model, verify_model, warm_up
from app.inference.network import SessionOptions
from app.inference.pipeline import AnalysisOptions, analyse
from app.inference.windows import shrunk
from app.main import create_app
from app.phantom.chest import phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.settings import Settings
from tests.api.analysed import hand_runner
from tests.jobs.installations import HandQueue
from tests.training.monai_bundles import needs_monai, write_talkative_bundle
from training.__main__ import main as training_command
from training.compare_monai import DIRECTIONS_LPS_ZYX, agreement, table, unpacked
from training.import_monai import import_bundle
from training.monai_bundle import Bundle, read_bundle
from training.monai_config import BundleError

ROOT = Path(__file__).resolve().parents[2]
LIKELY = 0.95
SESSION = SessionOptions(device="cpu", threads=1)
__all__ = ["needs_monai"]

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI warns of what it will change and of what is not installed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talkative_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder)


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``both``: the bundle, imported from the command line, with the characteriser of this house."""
    store = tmp_path_factory.mktemp("store")
    shutil.copytree(ROOT / "model_store" / "lungnodule" / "0.2.0", store / "lungnodule" / "0.2.0")
    assert import_command(*import_arguments(folder, store)) == 0
    return store


def import_command(*arguments: str) -> int:
    return training_command(["import-monai", *arguments])


def import_arguments(folder: Path, store: Path) -> list[str]:
    named = ["--store", str(store), "--name", "both", "--with-characteriser", "lungnodule:0.2.0"]
    return [str(folder), *named, "--operating-point", str(LIKELY)]


@pytest.fixture(scope="module")
def imported(store: Path) -> LoadedModel:
    """The detector of ``both`` alone; exporting it once more would take as long as all else here."""
    both = store / "both" / "1.0.0"
    verify_model(both)
    loaded = load_model(both, SESSION)
    warm_up(loaded)
    return with_manifest(loaded, characteriser=None, malignancy=None)


@pytest.fixture(scope="module")
def graph(bundle: Bundle, store: Path) -> LoadedModel:
    """``graph`` in the store: a detector alone, anchors, decoding and selection within its ONNX file."""
    model = store / "graph" / "1.0.0"
    import_bundle(bundle, model, name="graph", version="1.0.0", one_graph=True)
    verify_model(model)
    loaded = load_model(model, SESSION)
    warm_up(loaded)
    return loaded


def with_manifest(model: LoadedModel, **changes: Any) -> LoadedModel:
    return dataclasses.replace(model, manifest=model.manifest.model_copy(update=changes))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from training.monai_reference import BundlePipeline  # noqa: PLC0415

    return BundlePipeline(folder)


def written(folder: Path, direction: np.ndarray, **phantom: Any) -> Path:
    made = phantom_ct(shape_zyx=(60, 100, 100), direction_lps_zyx=direction, **phantom)
    write_dicom_series(made.volume, folder)
    return folder


def with_few(store: Path, name: str) -> str:
    """A copy of a model that gives a dozen candidates: what comes after the detector takes its time for each."""
    copy = shutil.copytree(store / name, store / f"few-{name}") / "1.0.0" / "manifest.json"
    manifest = json.loads(copy.read_text())
    manifest["name"] = f"few-{name}"
    manifest["detector"]["max_candidates"] = 12
    copy.write_text(json.dumps(manifest))
    return f"few-{name}"


@contextmanager
def served(store: Path, models: tuple[str, ...], folder: Path) -> Iterator[tuple[TestClient, Callable[..., str]]]:
    """The service with these models, and what hands in a job, works on it and gives the address of its results."""
    settings = Settings(
        model_store=store, models=models, device="cpu", threads=1, data_dir=folder / "data", min_free_disk_bytes=0
    )
    queue = HandQueue()
    app = create_app(settings, make_queue=lambda _: queue)
    with TestClient(app) as client:
        runner = hand_runner(app, folder)

        def work(files: Any, fields: dict[str, str]) -> str:
            job = client.post("/v1/jobs", files=files, data=fields).json()
            runner(queue.tickets.pop(0))
            return f"/v1/jobs/{job['id']}/results"

        yield client, work


def assert_same(scan: str, theirs: Any, series: Path, model: LoadedModel, *, windows: bool, least: int) -> None:
    found = agreement(
        scan, theirs(series), analyse(series, model, AnalysisOptions(threads=1, operating_point="bundle"))
    )
    assert found.windows == windows
    assert found.matched >= least, table([found])
    assert found.same, table([found])


@pytest.mark.parametrize("direction", list(DIRECTIONS_LPS_ZYX))
def test_boxes_of_several_windows_are_those_of_monai(
    direction: str, theirs: Any, imported: LoadedModel, tmp_path: Path
) -> None:
    series = written(tmp_path, DIRECTIONS_LPS_ZYX[direction], spacing_zyx_mm=(5.0, 3.5, 3.5))
    assert_same(direction, theirs, series, imported, windows=True, least=20)


def test_boxes_of_a_real_scan_are_those_of_monai(
    theirs: Any, imported: LoadedModel, shared_data: Path, tmp_path: Path
) -> None:
    """Its slices end half way between two voxels of the network's spacing: which of them is the last decides."""
    series = unpacked(shared_data / "ct" / "LIDC-IDRI-0001.zip", tmp_path)
    assert_same("LIDC-IDRI-0001", theirs, series, imported, windows=True, least=20)


def test_smaller_windows_give_what_monai_gives_with_windows_of_that_size(
    folder: Path, imported: LoadedModel, tmp_path: Path
) -> None:
    """Other boxes than those of whole windows, for normalisation sees a window; that is the network, no fault here."""
    from training.monai_reference import BundlePipeline  # noqa: PLC0415

    entry, bound = imported.manifest.detector, 200_000
    small = shrunk(entry.window, entry.multiple_zyx, bound).shape_zyx
    assert small != entry.window.shape_zyx
    theirs = BundlePipeline(folder)
    theirs.detector.set_sliding_window_inferer(small[::-1], overlap=0.25, sw_batch_size=1, mode="constant")
    series = written(tmp_path, DIRECTIONS_LPS_ZYX["straight"], spacing_zyx_mm=(5.0, 3.5, 3.5))
    options = AnalysisOptions(threads=1, operating_point="bundle", detector_max_voxels=bound)
    found = agreement("small", theirs(series), analyse(series, imported, options))
    assert found.windows
    assert found.matched >= 20
    assert found.same, table([found])


def test_one_pass_gives_the_same_boxes_decoded_in_the_graph_and_by_the_service(
    imported: LoadedModel, graph: LoadedModel
) -> None:
    """Every axis is a multiple of 16, so both see the same padding."""
    entry = imported.manifest.detector
    whole = entry.model_copy(update={"window": WindowRule(shape_zyx=(256, 256, 256), overlap=0.25)})
    models = [with_manifest(imported, detector=whole), graph]
    assert [model.manifest.detector.kind for model in models] == ["retinanet-heads", "boxes-3d"]
    volume = phantom_ct(shape_zyx=(48, 64, 64), spacing_zyx_mm=(63 * 4 / 47, 127 * 3 / 63, 127 * 3 / 63)).volume
    found = []
    for model in models:
        prepared = preprocess(volume, None, model.manifest.preprocessing)
        found.append(detect(prepared, model))
    ours, graphs = (np.array([np.ravel(c.box_corners_lps_mm) for c in some]) for some in found)
    assert len(ours) >= 20
    assert len(graphs) == len(ours)
    # The last of them may change places with what the limit cut off.
    for candidate, corners in list(zip(found[0], ours, strict=True))[: len(ours) * 4 // 5]:
        distance = np.abs(graphs - corners).max(axis=1)
        assert distance.min() < 0.02
        assert found[1][int(distance.argmin())].probability == pytest.approx(candidate.probability, abs=1e-3)


def test_the_array_is_that_of_monai(theirs: Any, imported: LoadedModel, tmp_path: Path) -> None:
    series = written(tmp_path, DIRECTIONS_LPS_ZYX["flipped"], spacing_zyx_mm=(2.0, 3.5, 3.1))
    answer = theirs(series)
    prepared = preprocess(read_ct(series)[0], None, imported.manifest.preprocessing)
    assert prepared.values.transpose(2, 1, 0) == pytest.approx(answer.values_xyz, abs=1e-5)
    assert prepared.grid.affine[:3, [2, 1, 0, 3]] == pytest.approx(answer.affine_lps[:3], abs=1e-3)


@pytest.mark.usefixtures("graph")
def test_it_is_served_alone_and_with_the_characteriser_of_this_house(store: Path, tmp_path: Path) -> None:
    """Over HTTP, as one that reads its DICOM objects meets it: predict, then a job with SR and SEG."""
    series = written(tmp_path / "scan", DIRECTIONS_LPS_ZYX["straight"], spacing_zyx_mm=(5.0, 3.5, 3.5))
    files = [("files", (path.name, path.read_bytes())) for path in sorted(series.iterdir())]
    both_name, alone_name = with_few(store, "both"), with_few(store, "graph")
    with served(store, (both_name, alone_name), tmp_path) as (client, work):
        both = client.post("/v1/predict", files=files, data={"model": both_name}).json()
        alone = client.post("/v1/predict", files=files, data={"model": alone_name}).json()
        assert both["operating_point"] == {"name": "stated", "threshold": LIKELY}
        assert both["nodules"]
        for nodule in both["nodules"]:
            assert nodule["probability"] >= LIKELY
            assert 0 < nodule["malignancy_probability"] < 1
            assert nodule["volume_mm3"] > 0
        assert alone["operating_point"]["name"] == "bundle"
        assert len(alone["nodules"]) == 12
        assert {nodule["malignancy_probability"] for nodule in alone["nodules"]} == {None}
        assert "detector only" in alone["malignancy_meaning"]
        results = work(files, {"model": both_name})
        assert pydicom.dcmread(io.BytesIO(client.get(f"{results}/sr").content)).Modality == "SR"
        assert client.get(f"{results}/seg").status_code == 200
        results = work(files, {"model": alone_name})
        assert client.get(f"{results}/sr").status_code == 200
        refused = client.get(f"{results}/seg")
        assert (refused.status_code, refused.json()["code"]) == (409, "boxes_only")


@pytest.mark.parametrize("score", ["0.01", "1"])
def test_an_operating_point_that_the_bundle_cannot_reach_is_refused(score: str, folder: Path, tmp_path: Path) -> None:
    assert import_command(str(folder), "--store", str(tmp_path), "--operating-point", score) == 2
    assert list(tmp_path.rglob("manifest.json")) == []


def test_torchscript_weights_are_read_and_pickles_are_not(bundle: Bundle) -> None:
    import pickle  # noqa: PLC0415

    import torch  # noqa: PLC0415

    from training.monai_network import build_network  # noqa: PLC0415

    network = build_network(bundle)
    # The published file holds a traced network; what counts here is how weights come out of one.
    traced = torch.jit.trace(network.feature_extractor.body.conv1, torch.zeros(1, 1, 8, 8, 8))
    content = io.BytesIO()
    torch.jit.save(traced, content)
    script = dataclasses.replace(bundle, weights=content.getvalue(), weights_name="models/model.ts")
    with pytest.raises(BundleError, match="belongs to another network"):
        build_network(script)

    class Trap:
        def __reduce__(self):
            return (os.putenv, ("LUNGNODULE_TRAP", "sprung"))

    for poison in (pickle.dumps(Trap()), b"no weights"):
        with pytest.raises(BundleError, match="is not read"):
            build_network(dataclasses.replace(bundle, weights=poison))


def test_a_model_that_is_there_is_not_overwritten(
    folder: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_command(*import_arguments(folder, store)) == 2
    assert "is there already" in capsys.readouterr().err
    verify_model(store / "both" / "1.0.0")


def test_a_bundle_that_fails_leaves_no_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert import_command(str(tmp_path / "nowhere"), "--store", str(tmp_path), "--name", "none") == 2
    named = [str(folder), "--store", str(tmp_path), "--name", "none"]
    assert import_command(*named, "--with-characteriser", "a:1") == 2
    assert not (tmp_path / "none" / "1.0.0").exists()
    assert "neither a folder nor a zip file" in capsys.readouterr().err
