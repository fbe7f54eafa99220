"""With a real Orthanc: an identified study comes in, nothing stored names the patient, results lie in that study."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from pydicom.dataset import Dataset

from app.cli.client import RunningService, running_service
from app.pacs.config import Login, WebTarget
from app.pacs.dicomweb import WebDestination
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from tests.pacs.orthanc import PASSWORD, USER, Orthanc, pacs_toml, running_orthanc, storescu, until
from tests.reporting.validators import errors_of_dcentvfy, errors_of_dciodvfy

KINDS = ("sr", "seg", "gsps", "ko", "sc", "pdf")
RESULTS = ["DOC", "KO", "OT", "PR", "SEG", "SR"]
PATIENT = {
    "PatientID": "KANARIE-4711", "PatientBirthDate": "19470213", "AccessionNumber": "KANARIE-A1",
    "StudyDescription": "KANARIE study", "ReferringPhysicianName": "KANARIE^DOCTOR",
    "InstitutionName": "KANARIE clinic",
    "StudyID": "KANARIE-S", "StudyDate": "20240229", "PatientComments": "KANARIE comment",
}  # fmt: skip


@dataclass(frozen=True)
class Came:
    """What was sent, what is stored, what came back."""

    data: Path
    sent: list[Dataset]
    job: dict[str, Any]
    answer: dict[str, Any]
    downloads: dict[str, bytes]
    results: list[Path]
    receipt: dict[str, Any]
    left: list[Path]
    traces: dict[str, list[str]]


def traces_in(folder: Path, wanted: dict[str, bytes]) -> dict[str, list[str]]:
    """In which files of a folder, by what they are called there, a trace of the patient lies."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        body = path.read_bytes()
        if hits := [name for name, trace in wanted.items() if trace in body]:
            found[str(path.relative_to(folder))] = hits
    return found


def archive_of(orthanc: Orthanc) -> WebDestination:
    login = Login(user=USER, secret_env="ORTHANC_PASSWORD")
    return WebDestination(WebTarget(kind="dicomweb", url=f"{orthanc.url}/dicom-web", login=login, timeout_s=60))


@pytest.fixture(scope="module")
def came(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[Came]:
    folder = tmp_path_factory.mktemp("site")

    def edit(dataset: Dataset, _number: int) -> None:
        for keyword, value in PATIENT.items():
            setattr(dataset, keyword, value)

    patient = PhantomPatient(name="KANARIE^ANNA")
    paths = write_dicom_series(phantom_ct(noise_hu=5.0, seed=3).volume, folder / "ct", patient=patient, edit=edit)
    sent = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    study = str(sent[0].StudyInstanceUID)
    with pytest.MonkeyPatch.context() as patch, running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        patch.setenv("ORTHANC_PASSWORD", PASSWORD)
        (folder / "pacs.toml").write_text(
            pacs_toml(orthanc, min_instances=20, kinds=KINDS, rule="deidentify = {}", more="[receive]\nkeep_s = 0")
        )
        environment = {
            "LUNGNODULE_DATA_DIR": str(folder / "data"), "LUNGNODULE_PACS_CONFIG": str(folder / "pacs.toml"),
            "LUNGNODULE_MODEL_STORE": str(tiny_model_store), "LUNGNODULE_MODELS": "tiny", "LUNGNODULE_DEVICE": "cpu",
            "LUNGNODULE_MIN_FREE_DISK_BYTES": "0", "LUNGNODULE_DRAIN_TIMEOUT_S": "0",
        }  # fmt: skip
        with running_service(environment) as service:
            until(lambda: is_following(folder / "data/jobs.sqlite"), "the log is followed")
            assert storescu(orthanc.dicom_port, paths) == 0
            until(lambda: ours(orthanc, study) == RESULTS, "every result is beside the images", patience_s=240)
            yield looked_at(service, orthanc, folder, sent)


def is_following(ledger: Path) -> bool:
    with closing(sqlite3.connect(ledger)) as database:
        return database.execute("SELECT seq FROM pacs_cursors").fetchone() is not None


def ours(orthanc: Orthanc, study: str) -> list[str]:
    return [modality for modality in orthanc.modalities_of(study) if modality != "CT"]


def looked_at(service: RunningService, orthanc: Orthanc, folder: Path, sent: list[Dataset]) -> Came:
    study = str(sent[0].StudyInstanceUID)
    (job,) = requests.get(f"{service.url}/v1/jobs", timeout=60).json()["jobs"]
    forms = {
        form: requests.get(f"{service.url}/v1/jobs/{job['id']}/results/{form}", timeout=60).content
        for form in ("sr", "fhir", "csv", "json")
    }
    review = f"{service.url}/v1/jobs/{job['id']}/review"
    requests.put(review, json={"reviewer": "Reader^Anna", "finished": True}, timeout=60).raise_for_status()
    forms["reviewed"] = requests.get(f"{review}/sr", timeout=60).content
    results = []
    for series in orthanc.qido(f"/studies/{study}/series"):
        if series["00080060"]["Value"] != ["CT"]:
            for made in archive_of(orthanc).instances_of(study, series["0020000E"]["Value"][0]):
                results.append(folder / f"{made.Modality}.dcm")
                made.save_as(results[-1], enforce_file_format=True)
    wanted = {"canary": b"KANARIE", "birth": b"19470213", "date": b"20240229", "study": study.encode()}
    wanted |= {"series": str(sent[0].SeriesInstanceUID).encode(), "image": str(sent[0].SOPInstanceUID).encode()}
    traces = traces_in(folder / "data", wanted)
    answer = requests.get(f"{service.url}{job['links']['result']}", timeout=60).json()
    identity = folder / "data/identities" / f"{job['id']}.json"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    receipt = requests.delete(f"{service.url}/v1/jobs/{job['id']}/data", timeout=60).json()
    left = list((folder / "data/identities").iterdir())
    return Came(folder / "data", sent, job, answer, forms, results, receipt, left, traces)


def test_nothing_that_is_stored_names_the_patient(came: Came) -> None:
    # Whose it was lies in one file for the job, and, until its series is tidied away, in one for each instance.
    elsewhere = {
        name: hits
        for name, hits in came.traces.items()
        if not name.startswith("identities/") and not name.endswith(".identity")
    }
    assert elsewhere == {}
    assert "canary" in came.traces[f"identities/{came.job['id']}.json"]


def test_the_answer_has_other_uids(came: Came) -> None:
    told = came.answer["series"]["study_instance_uid"]
    assert told.startswith("2.25.")
    assert told != came.sent[0].StudyInstanceUID
    assert b"KANARIE" not in came.downloads["json"] + came.downloads["csv"]


def test_every_result_is_of_the_original_patient_study_and_images(came: Came) -> None:
    images = {str(one.SOPInstanceUID) for one in came.sent}
    assert len(came.results) == len(KINDS)
    for path in came.results:
        made = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyID"):
            assert made[keyword].value == came.sent[0][keyword].value, (path.name, keyword)
        assert made.get("PatientIdentityRemoved") is None
        if "FrameOfReferenceUID" in made:
            assert made.FrameOfReferenceUID == came.sent[0].FrameOfReferenceUID
        referred = set(references(made))
        assert referred <= images | {str(pydicom.dcmread(other).SOPInstanceUID) for other in came.results}
        if made.Modality in ("SR", "SEG", "PR", "KO"):
            assert referred & images, path.name
        assert errors_of_dciodvfy(path) == [], path.name
    assert errors_of_dcentvfy(came.results) == []


def test_downloads_for_a_pacs_are_the_same_objects(came: Came) -> None:
    (report,) = [path for path in came.results if path.name == "SR.dcm"]
    downloaded = came.data / "sr.dcm"
    downloaded.write_bytes(came.downloads["sr"])
    assert pydicom.dcmread(downloaded).SOPInstanceUID == pydicom.dcmread(report).SOPInstanceUID
    assert str(came.sent[0].StudyInstanceUID).encode() in came.downloads["fhir"]


def test_a_reviewed_report_is_of_the_original_patient_too(came: Came) -> None:
    reviewed = pydicom.dcmread(BytesIO(came.downloads["reviewed"]))
    assert reviewed.StudyInstanceUID == came.sent[0].StudyInstanceUID
    assert reviewed.PatientName == came.sent[0].PatientName
    assert set(references(reviewed)) & {str(one.SOPInstanceUID) for one in came.sent}


def test_whose_it_was_goes_with_the_job(came: Came) -> None:
    assert came.receipt["files_left"] == 0
    assert came.left == []


def references(item: Dataset) -> Iterator[str]:
    for element in item:
        if element.VR == "SQ":
            for child in element.value:
                yield from references(child)
        elif element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
