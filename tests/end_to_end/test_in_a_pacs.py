"""Nobody calls us: a scanner sends a study to a real Orthanc, and every result lies beside it, read by others.

`lungnodule serve` as it is installed, its real pipeline, its real objects. Debian: orthanc, orthanc-dicomweb, dcmtk,
dicom3tools; PyPI: dcmqi. Where one is absent the tests are skipped, except in CI.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
import SimpleITK

from app.cli.client import RunningService, running_service
from app.pacs.config import Login, WebTarget
from app.pacs.dicomweb import WebDestination
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, running_orthanc, storescu, until
from tests.reporting.validators import errors_of_dciodvfy, program, run

KINDS = {"SR", "SEG", "PR", "KO", "OT", "DOC"}
PATIENCE_S = 300.0
"""For the shipped model on cores that others use too."""


@dataclass(frozen=True)
class Returned:
    """What the PACS has after an analysis that nobody asked for."""

    result: dict[str, Any]
    """The document, by the API."""
    folder: Path
    """Each result as the PACS gave it back, named by its modality."""
    images: dict[str, pydicom.Dataset]
    """Headers of the study's images, by SOPInstanceUID."""


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory, tiny_environment: dict[str, str]) -> Returned:
    folder = tmp_path_factory.mktemp("phantom")
    paths = write_dicom_series(phantom_ct(noise_hu=5.0, seed=3).volume, folder / "ct")
    return returned(folder, paths, tiny_environment)


@pytest.fixture(scope="module")
def lidc_0001(tmp_path_factory: pytest.TempPathFactory, shared_data: Path, shipped_store: Path) -> Returned:
    folder = tmp_path_factory.mktemp("lidc")
    with zipfile.ZipFile(shared_data / "ct/LIDC-IDRI-0001.zip") as archive:
        archive.extractall(folder / "ct")
    paths = sorted(path for path in (folder / "ct").rglob("*") if path.is_file() and pydicom.misc.is_dicom(path))
    return returned(folder, paths, {"LUNGNODULE_MODEL_STORE": str(shipped_store)})


@pytest.fixture(scope="module", params=["phantom", "lidc_0001"])
def there(request: pytest.FixtureRequest) -> Returned:
    made: Returned = request.getfixturevalue(request.param)
    return made


@contextmanager
def service(orthanc: Orthanc, folder: Path, environment: dict[str, str]) -> Iterator[RunningService]:
    """`lungnodule serve`, told of this Orthanc."""
    login = f'login = {{ user = "{USER}", secret_env = "ORTHANC_PASSWORD" }}'
    (folder / "pacs.toml").write_text(f"""
[orthanc.main]
url = "{orthanc.url}"
{login}
every_s = 0.2
begin = "oldest"

[targets.archive]
kind = "dicomweb"
url = "{orthanc.url}/dicom-web"
{login}

[[rules]]
name = "chest"
send = [{{ target = "archive", kinds = ["sr", "seg", "gsps", "ko", "sc", "pdf"] }}]
""")
    own = {
        "LUNGNODULE_DATA_DIR": str(folder / "data"), "LUNGNODULE_PACS_CONFIG": str(folder / "pacs.toml"),
        "LUNGNODULE_WORKER_LEASE_S": "2", "ORTHANC_PASSWORD": PASSWORD,
    }  # fmt: skip
    with running_service(environment | own) as ours:
        yield ours


def jobs_of(ours: RunningService, series_uid: str | None = None) -> list[dict[str, Any]]:
    """Every job, or those of a series."""
    jobs = list(requests.get(f"{ours.url}/v1/jobs", timeout=30).json()["jobs"])
    return [job for job in jobs if series_uid in (None, job["series_uid"])]


def is_sent(ours: RunningService, job: dict[str, Any]) -> bool:
    """Whether the PACS has confirmed all."""
    told = returns_of(ours, job)
    assert told
    return all(each["state"] == "sent" for each in told)


def returns_of(ours: RunningService, job: dict[str, Any]) -> list[dict[str, Any]]:
    """How far the job's results are, for each PACS."""
    return list(requests.get(f"{ours.url}{job['links']['pacs']}", timeout=30).json()["returns"])


def returned(folder: Path, paths: list[Path], environment: dict[str, str]) -> Returned:
    """Send a study to a PACS, wait, and take from it what it has then."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    series = str(headers[0].SeriesInstanceUID)
    (folder / "orthanc").mkdir()
    with running_orthanc(folder / "orthanc") as orthanc:
        with service(orthanc, folder, environment) as ours:
            assert storescu(orthanc.dicom_port, paths) == 0
            (job,) = until(lambda: jobs_of(ours, series), "there is a job", PATIENCE_S)
            until(lambda: is_sent(ours, job), "the results are confirmed", PATIENCE_S)
            result = requests.get(f"{ours.url}{job['links']['self']}/result", timeout=30).json()
        fetch(orthanc, str(headers[0].StudyInstanceUID), folder)
    return Returned(result, folder / "fetched", {str(one.SOPInstanceUID): one for one in headers})


def fetch(orthanc: Orthanc, study_uid: str, folder: Path) -> None:
    """QIDO-RS for the series of the study, WADO-RS for each that is no CT."""
    (folder / "secret").write_text(PASSWORD)
    login = Login(user=USER, secret_file=folder / "secret")
    web = WebDestination(
        WebTarget(kind="dicomweb", url=f"{orthanc.url}/dicom-web", login=login, max_answer_bytes=1 << 28)
    )
    (folder / "fetched").mkdir()
    for found in web.series_of(study_uid):
        if found["00080060"]["Value"] != ["CT"]:
            (one,) = web.instances_of(study_uid, found["0020000E"]["Value"][0])
            one.save_as(folder / "fetched" / f"{one.Modality}.dcm", enforce_file_format=True)


def test_every_kind_lies_once_in_the_study_of_the_images(there: Returned) -> None:
    assert there.result["nodules"]
    found = [pydicom.dcmread(path, stop_before_pixels=True) for path in there.folder.iterdir()]
    assert {one.Modality for one in found} == KINDS
    image = next(iter(there.images.values()))
    for one in found:
        assert (one.StudyInstanceUID, one.PatientID) == (image.StudyInstanceUID, image.PatientID)


def test_dciodvfy_finds_no_error_in_what_the_pacs_gives_back(there: Returned) -> None:
    assert {path.stem: found for path in there.folder.iterdir() if (found := errors_of_dciodvfy(path))} == {}


def test_dcmqi_reads_the_figures_of_the_document(there: Returned, tmp_path: Path) -> None:
    reader = program("tid1500reader", "dcmqi")
    run([reader, "--inputDICOM", there.folder / "SR.dcm", "--outputMetadata", tmp_path / "sr.json"])
    groups = [
        group
        for group in json.loads((tmp_path / "sr.json").read_text())["Measurements"]
        if "ReferencedSegment" in group
    ]
    assert len(groups) == len(there.result["nodules"])
    # Volume, long axis, certainty of finding, probability of cancer.
    for group, nodule in zip(groups, there.result["nodules"], strict=True):
        read = {item["quantity"]["CodeValue"]: float(item["value"]) for item in group["measurementItems"]}
        assert read["118565006"] == pytest.approx(nodule["volume_mm3"], abs=0.06)
        assert read["103339001"] == pytest.approx(nodule["long_axis_mm"], abs=0.06)
        assert read["111012"] == pytest.approx(100 * nodule["probability"], abs=0.06)
        assert read["111047"] == pytest.approx(100 * nodule["malignancy_probability"], abs=0.06)


def test_dcmqi_finds_each_outline_where_the_document_has_the_nodule(there: Returned, tmp_path: Path) -> None:
    reader = program("segimage2itkimage", "dcmqi")
    run([reader, "--inputDICOM", there.folder / "SEG.dcm", "--outputDirectory", tmp_path, "-p", "seg", "-t", "nrrd"])
    spacing_zyx_mm = np.array(there.result["series"]["spacing_zyx_mm"])
    for number, nodule in enumerate(there.result["nodules"], start=1):
        image = SimpleITK.ReadImage(str(tmp_path / f"seg-{number}.nrrd"))
        marked = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)[:, ::-1].astype(float)
        places = np.array([image.TransformContinuousIndexToPhysicalPoint(index.tolist()) for index in marked])
        low, high = places.min(axis=0), places.max(axis=0)
        center = np.array(nodule["center_lps_mm"])
        # The voxels' centres, so half a voxel is missing on either side.
        assert (low - spacing_zyx_mm[::-1] <= center).all()
        assert (center <= high + spacing_zyx_mm[::-1]).all()
        assert np.linalg.norm((low + high) / 2 - center) < max(spacing_zyx_mm.max(), 0.25 * nodule["long_axis_mm"])


def test_boxes_of_report_and_presentation_state_lie_on_the_nodule_in_mm(there: Returned) -> None:
    drawn = list(scoords(pydicom.dcmread(there.folder / "SR.dcm")))
    shown = list(graphics(pydicom.dcmread(there.folder / "PR.dcm")))
    assert len(drawn) == len(there.result["nodules"])
    for (uid, corners), nodule in zip(drawn, there.result["nodules"], strict=True):
        assert any(image == uid and np.allclose(corners, shape, atol=1e-3) for image, shape in shown)
        (box_px,) = (one["box_px"] for one in nodule["slices"] if one["sop_instance_uid"] == uid)
        assert [*(corners.min(axis=0) - 0.5), *(corners.max(axis=0) - 0.5)] == pytest.approx(box_px, abs=0.01)
        places = to_patient(there.images[uid], corners)
        low, high = places.min(axis=0), places.max(axis=0)
        whole, center = nodule["bounding_box"]["lps_mm"], np.array(nodule["center_lps_mm"])
        # What the nodule has on this slice is part of its box, and the nodule's middle lies within.
        assert (np.array(whole["min"]) - 0.02 <= low).all()
        assert (high <= np.array(whole["max"]) + 0.02).all()
        assert (low[:2] < center[:2]).all()
        assert (center[:2] < high[:2]).all()


def test_both_sides_killed_in_mid_flow_lose_no_object_and_store_none_twice(
    tmp_path: Path, tiny_environment: dict[str, str]
) -> None:
    volume = phantom_ct(noise_hu=5.0, seed=4).volume
    paths = write_dicom_series(volume, tmp_path / "ct", patient=PhantomPatient(name="MID^FLOW"))
    first = pydicom.dcmread(paths[0], stop_before_pixels=True)
    study, series = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
    (tmp_path / "orthanc").mkdir()
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        with service(orthanc, tmp_path, tiny_environment) as ours:
            assert storescu(orthanc.dicom_port, paths) == 0
            (job,) = until(lambda: jobs_of(ours, series), "there is a job")
            kill(ours)  # its analysis has just begun, or waits
        orthanc.stop()
        with service(orthanc, tmp_path, tiny_environment) as ours:
            until(lambda: returns_of(ours, job)[0]["last_answer"], "it was tried")
            assert returns_of(ours, job)[0]["last_answer"] == "pacs_unreachable"
            kill(ours)
        orthanc.start()
        with service(orthanc, tmp_path, tiny_environment) as ours:
            until(lambda: is_sent(ours, job), "the results are confirmed")
            asked = {"target": "archive", "kinds": ["sr", "seg"]}
            assert requests.post(f"{ours.url}{job['links']['pacs']}", json=asked, timeout=30).status_code == 202
            until(lambda: is_sent(ours, job), "two of them are confirmed once more")
            assert len(jobs_of(ours)) == 1
        assert sorted(orthanc.modalities_of(study)) == sorted(KINDS | {"CT"})
        assert len(orthanc.qido(f"/studies/{study}/instances?limit=1000")) == len(paths) + len(KINDS)


def kill(ours: RunningService) -> None:
    """As a power cut would."""
    ours.process.kill()
    ours.process.wait()


def scoords(item: pydicom.Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Image and corners (column, row) of each SCOORD."""
    for child in item.get("ContentSequence", []):
        if child.ValueType == "SCOORD":
            image = child.ContentSequence[0].ReferencedSOPSequence[0]
            yield str(image.ReferencedSOPInstanceUID), np.reshape(child.GraphicData, (-1, 2))
        yield from scoords(child)


def graphics(state: pydicom.Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Image and corners (column, row) of each shape."""
    for annotation in state.GraphicAnnotationSequence:
        for image in annotation.ReferencedImageSequence:
            for shape in annotation.get("GraphicObjectSequence", []):
                yield str(image.ReferencedSOPInstanceUID), np.reshape(shape.GraphicData, (-1, 2))


def to_patient(header: pydicom.Dataset, corners: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.2.1.1: graphics have the centre of pixel 0, 0 at 0.5, 0.5."""
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    across = (corners - 0.5) * np.array([float(header.PixelSpacing[1]), float(header.PixelSpacing[0])])
    return np.array(header.ImagePositionPatient, float) + across @ np.stack((row, column))
