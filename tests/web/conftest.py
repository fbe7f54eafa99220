"""The workspace as a person meets it: the real service, and a real Chromium without a window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from app.cli.client import running_service
from app.inference.model_store import list_models
from app.phantom.chest import phantom_ct
from app.phantom.dicom_headers import PhantomPatient
from app.phantom.dicom_series import write_dicom_series
from tests.web.chromium import MISSING, find, launch
from tests.web.person import CANARY_FILE, CANARY_PATIENT, finished_job, service_settings

_COSTLY = ("shipped_workspace", "guarded", "lesser", "workspace_service", "idle_service")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the same service goes to the same process, where pytest-xdist is told to heed groups."""
    for item in items:
        needed = getattr(item, "fixturenames", ())
        if service := next((name for name in _COSTLY if name in needed), None):
            item.add_marker(pytest.mark.xdist_group(service))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    if find() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh tab in a fresh profile, watched."""
    with watched_tab(browser) as tab:
        yield tab


@contextmanager
def watched_tab(browser: Browser) -> Iterator[Page]:
    """Fails for what its scripts throw, for what breaks the page's policy, and for what is asked of another host."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    tab.on("request", lambda request: None if _is_own(request.url) else wrong.append(request.url))
    yield tab
    context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def kept_tab(browser: Browser) -> Iterator[Page]:
    """One profile for tests that change nothing of what outlives a page: modules are not fetched anew by each."""
    with watched_tab(browser) as tab:
        yield tab


def _is_own(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))


@pytest.fixture(scope="session")
def workspace_service(tiny_model_store: Path) -> Iterator[str]:
    """URL of a service on the tiny model."""
    with running_service(service_settings(tiny_model_store, MODELS="tiny")) as service:
        yield service.url


@pytest.fixture(scope="session")
def idle_service(tiny_model_store: Path) -> Iterator[str]:
    """URL of a service that takes scans in and has no worker: its jobs wait."""
    with running_service(service_settings(tiny_model_store, MODELS="tiny", WORKER_CONCURRENCY="0")) as service:
        yield service.url


@pytest.fixture(scope="session")
def shipped_workspace() -> Iterator[str]:
    """URL of a service on the repository's own model."""
    store = Path(__file__).resolve().parents[2] / "model_store"
    if not list_models(store):
        pytest.skip("model_store/ holds no model yet")
    with running_service(service_settings(store)) as service:
        yield service.url


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of DICOM files; the patient's name lies in them, another in the names of folder and files."""
    folder = tmp_path_factory.mktemp("drop") / f"{CANARY_FILE}^JANE"
    phantom = phantom_ct(shape_zyx=(64, 128, 128), nodule_count=3, seed=5)
    patient = PhantomPatient(name=f"{CANARY_PATIENT}^JOHN", patient_id=CANARY_PATIENT)
    write_dicom_series(phantom.volume, folder, patient=patient)
    for path in folder.iterdir():
        path.rename(path.with_name(f"{CANARY_FILE}-{path.name}"))
    return folder


@pytest.fixture(scope="session")
def phantom_study(workspace_service: str, phantom_folder: Path) -> str:
    """Id of a finished job on the phantom."""
    return finished_job(workspace_service, sorted(phantom_folder.iterdir()))


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where a test run leaves pictures for a person to look at."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
