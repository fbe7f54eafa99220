"""What lies beside a model over HTTP, and that nothing else of the disk does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.api.analysed import refused
from tests.api.standins import Recorder, Serve
from tests.jobs.installations import HandQueue
from tests.tiny_model import write_tiny_model

METRICS = [
    {"name": "detection_cpm", "value": 0.68, "ci95": [0.55, 0.8], "n": 120, "data": "phantoms"},
    {"name": "detection_sensitivity_at_8_fp_per_scan", "value": 0.79, "n": 120, "data": "phantoms"},
    {"name": "detection_sensitivity_at_0.125_fp_per_scan", "value": 0.33, "ci95": [0.1, 0.7], "n": 120,
     "data": "phantoms"},
    {"name": "detection_sensitivity_at_1_fp_per_scan", "value": 0.75, "ci95": [0.6, 0.8], "n": 120,
     "data": "phantoms"},
    {"name": "detection_sensitivity_at_1_fp_per_scan", "value": 0.99, "n": 360, "data": "other phantoms"},
    {"name": "nodule_auroc", "value": 0.98, "n": 10, "data": "patches"},
]  # fmt: skip
TINY = "/v1/models/tiny/1.0.0"
SECRET = "not for everyone"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("documents")
    store = folder / "store"
    version = write_tiny_model(store, changes={"metrics": METRICS})
    write_tiny_model(store, version="1.1.0")
    reports = version / "reports"
    (reports / "folder.md").mkdir(parents=True)
    (reports / "evaluation.md").write_text("text\n\n# Evaluation of tiny\n")
    (reports / "curve.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (reports / "page.js").write_text("alert(1)")
    (reports / "page.html").write_text("<title>A &amp; B</title><script>alert(1)</script>")
    (reports / ".hidden.md").write_text(SECRET)
    (folder / "secret.md").write_text(SECRET)
    (reports / "link.md").symlink_to(folder / "secret.md")
    settings = Settings(
        model_store=store, models=("tiny:1.0.0",), data_dir=folder / "data", device="cpu", threads=1,
        min_free_disk_bytes=0,
    )  # fmt: skip
    with TestClient(create_app(settings, run=Recorder(), make_queue=lambda _: HandQueue())) as made:
        yield made


def test_the_card_is_the_file(client: TestClient) -> None:
    answer = client.get(f"{TINY}/card")
    assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.text.startswith("# tiny 1.0.0")
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


def test_the_curve_is_that_of_the_manifest(client: TestClient) -> None:
    told = client.get(f"{TINY}/froc").json()
    assert [(one["fp_per_scan"], one["sensitivity"]) for one in told["points"]] == [(0.125, 0.33), (1, 0.75), (8, 0.79)]
    assert [one["ci95"] for one in told["points"]] == [[0.1, 0.7], [0.6, 0.8], None]
    assert (told["cpm"], told["data"], told["n"]) == (0.68, "phantoms", 120)
    without = client.get("/v1/models/tiny/1.1.0/froc").json()
    assert without == {"points": [], "cpm": None, "data": None, "n": None}


def test_reports_are_listed_and_sent(client: TestClient) -> None:
    listed = client.get(f"{TINY}/reports").json()["reports"]
    assert [(one["name"], one["title"], one["media_type"]) for one in listed] == [
        ("curve.png", "curve.png", "image/png"),
        ("evaluation.md", "Evaluation of tiny", "text/markdown"),
        ("page.html", "A & B", "text/html"),
    ]
    for one in listed:
        answer = client.get(f"{TINY}/reports/{one['name']}")
        assert len(answer.content) == one["size"]
        assert answer.headers["content-type"].startswith(one["media_type"])
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get("/v1/models/tiny/1.1.0/reports").json() == {"reports": []}


def test_a_page_is_read_and_never_run(client: TestClient) -> None:
    answer = client.get(f"{TINY}/reports/page.html")
    policy = answer.headers["content-security-policy"]
    assert policy.split(";")[0] == "sandbox", "no script, no form, no origin"
    assert "script-src" not in policy


@pytest.mark.parametrize(
    "name",
    ["link.md", ".hidden.md", "folder.md", "page.js", "none.md", "..%2fmanifest.json", "%2e%2e%2fMODEL_CARD.md",
     "..%5cmanifest.json", "manifest.json", "a" * 300 + ".md", "evaluation.md%00.png"],
)  # fmt: skip
def test_nothing_else_is_sent(client: TestClient, name: str) -> None:
    answer = client.get(f"{TINY}/reports/{name}")
    assert answer.status_code == 404
    assert SECRET not in answer.text


@pytest.mark.parametrize("what", ["card", "froc", "reports", "reports/evaluation.md"])
def test_a_model_that_is_not_there(client: TestClient, what: str) -> None:
    assert refused(client.get(f"/v1/models/none/1.0.0/{what}")) == (404, "unknown_model")
    assert refused(client.get(f"/v1/models/..%2ftiny/1.0.0/{what}"))[0] == 404


def test_a_version_without_a_card(serve: Serve) -> None:
    assert refused(serve().get("/v1/models/standin/1.2.3/card")) == (404, "no_card")
