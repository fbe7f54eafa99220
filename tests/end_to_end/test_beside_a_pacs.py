"""The service beside a real Orthanc: a scanner sends a series, nobody calls us, every result lies in the same study.

DCMTK sends, QIDO-RS finds, WADO-RS fetches, dciodvfy judges, and dcmqi reads the figures and places of the JSON.
"""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
import SimpleITK
from pydicom.dataset import Dataset

from app.cli.client import RunningService, running_service
from app.pacs.config import Login, WebTarget
from app.pacs.dicomweb import WebDestination
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from app.reporting import codes
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, pacs_toml, running_orthanc, storescu, until
from tests.reporting.validators import errors_of_dciodvfy, program, run

KINDS = ("sr", "seg", "gsps", "ko", "sc", "pdf")
RESULTS = ["DOC", "KO", "OT", "PR", "SEG", "SR"]
MODEL_STORE = Path(__file__).resolve().parents[2] / "model_store"


@dataclass(frozen=True)
class Site:
    """A scanner's series, our settings, and the archive."""

    orthanc: Orthanc
    series: list[Path]
    study_uid: str
    folder: Path
    environment: dict[str, str]

    def service(self) -> Any:
        return running_service(self.environment)

    def position(self) -> int:
        """How far our service has read Orthanc's log; -1 before it has begun."""
        with closing(sqlite3.connect(self.folder / "data/jobs.sqlite")) as database:
            row = database.execute("SELECT seq FROM pacs_cursors").fetchone()
        return -1 if row is None else int(row[0])

    def results(self) -> list[str]:
        """Modalities of the series that are not the scanner's."""
        return [modality for modality in self.orthanc.modalities_of(self.study_uid) if modality != "CT"]

    def fetched(self) -> list[Dataset]:
        """Every object of ours in the study, by WADO-RS."""
        found = self.orthanc.qido(f"/studies/{self.study_uid}/series")
        ours = [one["0020000E"]["Value"][0] for one in found if one["00080060"]["Value"] != ["CT"]]
        archive = WebDestination(
            WebTarget(
                kind="dicomweb",
                url=f"{self.orthanc.url}/dicom-web",
                login=Login(user=USER, secret_env="ORTHANC_PASSWORD"),
                timeout_s=60,
            )
        )
        return [one for uid in ours for one in archive.instances_of(self.study_uid, uid)]


@pytest.fixture(scope="module")
def make_site(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[Callable[..., Site]]:
    with pytest.MonkeyPatch.context() as patch, running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        patch.setenv("ORTHANC_PASSWORD", PASSWORD)

        def make(series: list[Path], model_store: Path = tiny_model_store, models: str = "tiny") -> Site:
            folder = tmp_path_factory.mktemp("site")
            (folder / "pacs.toml").write_text(pacs_toml(orthanc, min_instances=20, kinds=KINDS))
            environment = {
                "LUNGNODULE_DATA_DIR": str(folder / "data"), "LUNGNODULE_PACS_CONFIG": str(folder / "pacs.toml"),
                "LUNGNODULE_MODEL_STORE": str(model_store), "LUNGNODULE_MODELS": models, "LUNGNODULE_DEVICE": "cpu",
                "LUNGNODULE_MIN_FREE_DISK_BYTES": "0", "LUNGNODULE_WORKER_LEASE_S": "2",
                "LUNGNODULE_DRAIN_TIMEOUT_S": "0",
            }  # fmt: skip
            study_uid = str(pydicom.dcmread(series[0], stop_before_pixels=True).StudyInstanceUID)
            return Site(orthanc, series, study_uid, folder, environment)

        yield make


@dataclass(frozen=True)
class Analysed:
    """What came of it: the answer over HTTP, and the objects in the archive as files, by modality."""

    site: Site
    answer: dict[str, Any]
    files: dict[str, Path]


@pytest.fixture(scope="module", params=["phantom", "LIDC-IDRI-0001"])
def analysed(
    request: pytest.FixtureRequest, make_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory
) -> Analysed:
    folder = tmp_path_factory.mktemp("ct")
    if request.param == "phantom":
        site = make_site(write_dicom_series(phantom_ct(noise_hu=5.0, seed=3).volume, folder))
    else:
        with zipfile.ZipFile(request.getfixturevalue("shared_data") / "ct/LIDC-IDRI-0001.zip") as archive:
            archive.extractall(folder)
        series = sorted(path for path in folder.rglob("*") if path.suffix == ".dcm")
        site = make_site(series, MODEL_STORE, "lungnodule")
    with site.service() as service:
        until(lambda: site.position() >= 0, "the log is followed")
        assert storescu(site.orthanc.dicom_port, site.series) == 0
        until(lambda: site.results() == RESULTS, "every result is beside the images", patience_s=240)
        answer = the_answer(service)
    files = {}
    for made in site.fetched():
        files[str(made.Modality)] = folder / f"{made.Modality}.dcm"
        made.save_as(files[str(made.Modality)], enforce_file_format=True)
    return Analysed(site, answer, files)


def the_answer(service: RunningService) -> dict[str, Any]:
    """Of the only job."""
    (job,) = requests.get(f"{service.url}/v1/jobs", timeout=60).json()["jobs"]
    found: dict[str, Any] = requests.get(f"{service.url}{job['links']['result']}", timeout=60).json()
    return found


def test_every_form_is_in_the_study_and_valid(analysed: Analysed) -> None:
    assert sorted(analysed.files) == RESULTS
    assert analysed.answer["nodules"]
    assert analysed.answer["series"]["study_instance_uid"] == analysed.site.study_uid
    for path in analysed.files.values():
        assert errors_of_dciodvfy(path) == [], path.name


def test_an_independent_reader_finds_the_figures_of_the_answer(analysed: Analysed, tmp_path: Path) -> None:
    read = tmp_path / "sr.json"
    run([program("tid1500reader", "dcmqi"), "--inputDICOM", analysed.files["SR"], "--outputMetadata", read])
    groups = [group for group in json.loads(read.read_text())["Measurements"] if "ReferencedSegment" in group]
    nodules = analysed.answer["nodules"]
    assert [group["ReferencedSegment"] for group in groups] == list(range(1, len(nodules) + 1))
    for group, nodule in zip(groups, nodules, strict=True):
        volumes = [
            float(item["value"])
            for item in group["measurementItems"]
            if item["quantity"]["CodeValue"] == codes.VOLUME.value and "derivationModifier" not in item
        ]
        assert volumes == [pytest.approx(nodule["volume_mm3"], abs=0.11)]
        assert value_of(group, codes.LONG_AXIS) == pytest.approx(nodule["long_axis_mm"], abs=0.06)
        assert value_of(group, codes.SHORT_AXIS) == pytest.approx(nodule["short_axis_mm"], abs=0.06)
        assert value_of(group, codes.PROBABILITY_OF_CANCER) == pytest.approx(
            100 * nodule["malignancy_probability"], abs=0.06
        )


def value_of(group: dict[str, Any], concept: codes.Concept) -> float:
    """Of the one measurement of this kind in a group, as dcmqi read it."""
    (item,) = [
        item
        for item in group["measurementItems"]
        if item["quantity"]["CodeValue"] == concept.value and "derivationModifier" not in item
    ]
    return float(item["value"])


def test_the_same_objects_again_are_stored_once(analysed: Analysed) -> None:
    orthanc = analysed.site.orthanc
    for path in analysed.files.values():
        answer = requests.post(f"{orthanc.url}/instances", data=path.read_bytes(), auth=(USER, PASSWORD), timeout=60)
        assert (answer.status_code, answer.json()["Status"]) == (200, "AlreadyStored"), path.name
    assert analysed.site.results() == RESULTS
    assert len(analysed.site.fetched()) == len(KINDS)


def test_an_independent_reader_finds_the_outlines_where_the_answer_says(analysed: Analysed, tmp_path: Path) -> None:
    reader = program("segimage2itkimage", "dcmqi")
    run([reader, "--inputDICOM", analysed.files["SEG"], "--outputDirectory", tmp_path, "-p", "seg", "-t", "nrrd"])
    slice_mm = max(analysed.answer["series"]["spacing_zyx_mm"])
    for number, nodule in enumerate(analysed.answer["nodules"], start=1):
        image = SimpleITK.ReadImage(str(tmp_path / f"seg-{number}.nrrd"))
        marked = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)[:, ::-1].astype(float)
        places = np.array([image.TransformContinuousIndexToPhysicalPoint(index.tolist()) for index in marked])
        assert np.linalg.norm(places.mean(axis=0) - nodule["center_lps_mm"]) < 0.5 * slice_mm


def test_the_boxes_of_the_report_are_those_of_the_answer(analysed: Analysed) -> None:
    drawn = list(scoords(pydicom.dcmread(analysed.files["SR"])))
    assert len(drawn) == len(analysed.answer["nodules"])
    for (uid, corners), nodule in zip(drawn, analysed.answer["nodules"], strict=True):
        (shown,) = [one["box_px"] for one in nodule["slices"] if one["sop_instance_uid"] == uid]
        # In DICOM the middle of the first pixel is (0.5, 0.5), in the answer (0, 0).
        found = [*(corners.min(axis=0) - 0.5), *(corners.max(axis=0) - 0.5)]
        assert found == pytest.approx(shown, abs=0.05)


def scoords(item: Dataset) -> Iterator[tuple[str, Any]]:
    for child in item.get("ContentSequence", []):
        if child.ValueType == "SCOORD":
            image = child.ContentSequence[0].ReferencedSOPSequence[0]
            yield str(image.ReferencedSOPInstanceUID), np.reshape(child.GraphicData, (-1, 2))
        yield from scoords(child)


def test_archive_and_service_killed_in_mid_flow_lose_nothing_and_store_nothing_twice(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    another = PhantomPatient(name="PHANTOM^ANOTHER")  # and so another study
    site = make_site(write_dicom_series(phantom_ct(noise_hu=5.0, seed=5).volume, tmp_path, patient=another))
    orthanc = site.orthanc
    with site.service() as service:
        until(lambda: site.position() >= 0, "the log is followed")
        assert storescu(orthanc.dicom_port, site.series) == 0
        until(lambda: requests.get(f"{service.url}/v1/jobs", timeout=60).json()["jobs"], "the job is there")
        service.process.kill()
    orthanc.stop()
    with site.service() as service:
        job = until(lambda: ended(service), "it is analysed while the archive is away")
        assert job["state"] == "succeeded"
        until(lambda: returned(service, job)["last_answer"], "sending was tried, and failed")
        service.process.kill()
    orthanc.start()
    with site.service() as service:
        until(lambda: returned(service, job)["state"] == "sent", "the archive has confirmed")
        assert returned(service, job)["objects_confirmed"] == len(KINDS)
    assert site.results() == RESULTS
    assert len(site.fetched()) == len(KINDS)


def ended(service: RunningService) -> dict[str, Any] | None:
    (job,) = requests.get(f"{service.url}/v1/jobs", timeout=60).json()["jobs"]
    return job if job["state"] not in ("queued", "running") else None


def returned(service: RunningService, job: dict[str, Any]) -> dict[str, Any]:
    (sent,) = requests.get(f"{service.url}/v1/jobs/{job['id']}/pacs", timeout=60).json()["returns"]
    return dict(sent)
