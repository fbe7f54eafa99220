"""A job on a model that judges no malignancy and draws no outline: every form of its answer says so, none invents."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK
from starlette.testclient import TestClient

from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import NO_MALIGNANCY
from app.main import create_app
from app.phantom.chest import phantom_ct
from app.phantom.nodules import NoduleSpec
from app.reporting.codes import PROBABILITY_OF_CANCER, quantities
from app.reporting.summary_page import figures
from app.settings import Settings
from tests.api.analysed import hand_runner
from tests.api.standins import make_nodule, shelved
from tests.foreign_networks import BLOCK_ENTRY, block_network, write_foreign_model
from tests.jobs.installations import HandQueue


def test_every_form_of_the_answer_leaves_out_what_was_not_judged(tmp_path: Path) -> None:
    folder = write_foreign_model(tmp_path / "store", BLOCK_ENTRY, block_network())
    model = load_model(folder, SessionOptions(device="cpu", threads=1))
    settings = Settings(data_dir=tmp_path / "data", min_free_disk_bytes=0, threads=1)
    queue = HandQueue()
    app = create_app(settings, load=lambda _: shelved(model), make_queue=lambda _: queue)
    ct = phantom_ct(shape_zyx=(48, 128, 128), spacing_zyx_mm=(3.0, 2.5, 2.5), nodules=(NoduleSpec(18.0),), seed=3)
    image = SimpleITK.GetImageFromArray(ct.volume.hu)
    image.SetSpacing([2.5, 2.5, 3.0])
    SimpleITK.WriteImage(image, str(tmp_path / "scan.mha"))
    with TestClient(app) as client:
        runner = hand_runner(app, tmp_path)
        job = client.post("/v1/jobs", files=[("files", ("scan.mha", (tmp_path / "scan.mha").read_bytes()))]).json()
        runner(queue.tickets.pop(0))
        path = f"/v1/jobs/{job['id']}"
        answer = client.get(f"{path}/result").json()
        assert answer["nodules"]
        assert {nodule["malignancy_probability"] for nodule in answer["nodules"]} == {None}
        assert answer["malignancy_meaning"] == NO_MALIGNANCY
        table = client.get(f"{path}/results/csv")
        rows = list(csv.DictReader(io.StringIO(table.text)))
        assert {(row["malignancy_probability"], row["label"]) for row in rows} == {("", "")}
        for form in ("pdf", "fhir"):
            assert client.get(f"{path}/results/{form}").status_code == 200
        assert "Probability of cancer" not in client.get(f"{path}/results/fhir").text
        refused = client.get(f"{path}/nodules/{answer['nodules'][0]['id']}/explanation")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_explained")


@pytest.mark.parametrize(("probability", "said"), [(0.25, "25 %"), (None, "not judged")])
def test_dicom_objects_have_a_probability_of_cancer_only_where_it_was_judged(
    probability: float | None, said: str
) -> None:
    nodule = replace(make_nodule(1, 0.9), malignancy_probability=probability, label=None)
    names = [quantity.name for quantity in quantities(nodule)]
    assert (PROBABILITY_OF_CANCER in names) == (probability is not None)
    assert f"malignancy {said}" in figures(nodule)
