"""The clinical context of a scan: used for its answer, kept with its job, never in the ledger."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.imaging.inputs import InputFile
from app.inference.findings import Location
from app.jobs.intake import Request
from app.jobs.rows import as_json, order_of
from app.reporting.bundle import document_of
from tests.api.standins import Recorder, make_findings, make_nodule
from tests.jobs.installations import ORDER, WHO, World, world

SCAN = [("files", ("one.dcm", b"first"))]
CONTEXT = {
    "age_years": 67.25, "sex": "female", "family_history_lung_cancer": False, "emphysema": True,
    "setting": "screening", "screening_exam": "baseline",
}  # fmt: skip
NODULE = replace(make_nodule(1, 0.9), kind="solid", is_spiculated=False, location=Location(lobe="upper"), signs=())


def told(**changes: Any) -> dict[str, str]:
    return {"context": json.dumps({**CONTEXT, **changes})}


def test_predict_uses_it(client: TestClient, recorder: Recorder) -> None:
    recorder.answer = make_findings(NODULE)
    assessment = client.post("/v1/predict", files=SCAN, data=told()).json()["assessment"]
    assert assessment["lung_rads"]["category"] == "3"
    assert assessment["nodules"][0]["brock"][0]["probability"] is not None
    bare = client.post("/v1/predict", files=SCAN).json()["assessment"]
    assert (bare["context"], bare["lung_rads"]["category"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "context"), ("[]", "context"), ("[" * 1000, "context"), ("1" * 1000, "context"),
        ('{"age_years": "Doe"}', "context.age_years"), ('{"age_years": NaN}', "context.age_years"),
        ('{"Doe": 1}', "context"), ('{"smoking": {"Doe": 1}}', "context.smoking"), ('"Doe"', "context"),
        ('{"smoking": {"status": "never", "pack_years": 3}}', "context.smoking"),
    ],
)  # fmt: skip
def test_one_that_does_not_fit_is_refused_and_not_quoted(
    client: TestClient, recorder: Recorder, text: str, field: str
) -> None:
    for path in ("/v1/predict", "/v1/jobs"):
        answer = client.post(path, files=SCAN, data={"context": text})
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "invalid_option"), answer.text
        assert [fault["field"] for fault in problem["errors"]] == [field]
        assert "Doe" not in answer.text
    assert recorder.contents == []


@pytest.fixture
def here(tmp_path: Path) -> Any:
    with world(tmp_path) as made:
        yield made


def submit(here: World, context: bytes | None, content: bytes = b"scan", key: str | None = None) -> str:
    folder = here.jobs.store.incoming / "upload"
    folder.mkdir(exist_ok=True)
    (folder / "000000").write_bytes(content)
    sha256 = None if context is None else hashlib.sha256(context).hexdigest()
    request = Request(replace(ORDER, context_sha256=sha256), WHO, key, context=context)
    return here.jobs.intake.accept(folder, [InputFile(folder / "000000", "a")], request)


BODY = json.dumps(CONTEXT).encode()


def answer_of(here: World, job_id: str) -> dict[str, Any]:
    kept = here.job(job_id).result
    assert kept is not None
    return dict(json.loads(document_of(here.jobs.store.result(job_id, kept))))


def test_a_job_keeps_it_and_its_answer_uses_it(here: World) -> None:
    job_id = submit(here, BODY)
    here.work()
    assert answer_of(here, job_id)["assessment"]["context"] == CONTEXT


def test_it_is_part_of_the_work_and_of_what_a_key_stands_for(here: World) -> None:
    first, other = submit(here, BODY, key="k"), submit(here, BODY.replace(b"67.25", b"68"))
    bare = submit(here, None)
    here.work()
    assert submit(here, BODY, key="k") == first
    assert len({here.job(job_id).work_digest for job_id in (first, other, bare)}) == 3
    assert len(here.analysed) == 3
    again = submit(here, BODY)
    assert here.job(again).answered_from == first
    assert answer_of(here, again) == answer_of(here, first)


def test_the_ledger_holds_neither_age_nor_sex_nor_anything_else_of_it(here: World, tmp_path: Path) -> None:
    submit(here, BODY)
    here.work()
    stored = [path for path in tmp_path.rglob("*") if path.is_file() and "results" not in path.parts]
    assert any(path.name.endswith((".db", ".sqlite", ".sqlite3")) or "sqlite" in path.name for path in stored), stored
    for path in stored:
        content = path.read_bytes()
        for word in (b"67.25", b"female", b"emphysema", b"screening"):
            assert word not in content, path


def test_it_goes_with_the_job_and_is_counted(here: World, tmp_path: Path) -> None:
    job_id = submit(here, BODY)
    here.work()
    path = here.jobs.store.root / "results" / job_id / "context.json"
    assert path.read_bytes() == BODY
    assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
    bare = submit(here, None, b"another scan")
    here.work()
    with_context, without = (here.jobs.eraser.erase(one, WHO, "request") for one in (job_id, bare))
    assert with_context.files_removed == without.files_removed + 1
    assert with_context.files_left == 0
    assert not any(b"67.25" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_what_is_left_of_it_is_found(here: World) -> None:
    """The proof of an erasure looks anew."""
    job_id = submit(here, BODY)
    assert here.jobs.store.left_of(job_id, None) == 1


def test_a_job_that_is_not_admitted_leaves_none(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = submit(here, BODY, key="k")
    known = [first, None]
    # Two requests with the same key at the same moment: this one looked before the other one wrote.
    monkeypatch.setattr(type(here.jobs.intake), "_job_of_key", lambda *_: known.pop() if known else first, raising=True)
    assert submit(here, BODY, key="k") == first
    assert [path.parent.name for path in here.jobs.store.root.rglob("context.json")] == [first]


def test_a_context_that_was_changed_is_not_used(here: World) -> None:
    job_id = submit(here, BODY)
    (here.jobs.store.root / "results" / job_id / "context.json").write_bytes(b"{}")
    here.work()
    assert here.job(job_id).problem is not None
    assert here.job(job_id).problem["values"]["last"] == "context_damaged"
    assert here.analysed == []


def test_an_order_without_one_is_written_as_before_there_was_any() -> None:
    assert "context_sha256" not in as_json(ORDER)
    assert order_of(as_json(ORDER)) == ORDER
    with_context = replace(ORDER, context_sha256="ab" * 32)
    assert order_of(as_json(with_context)) == with_context
