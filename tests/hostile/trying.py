"""One hostile input, tried: the answer, what it cost, and whether everything else is as it was."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import requests

from app.settings import Settings
from tests.hostile.cases import PROTOCOL, Case
from tests.hostile.routes import finished_job
from tests.hostile.series_files import good_nifti
from tests.hostile.site import SECRETS, Answer, Site, Watch
from tests.hostile.worlds import MIB


@dataclass(frozen=True)
class Tried:
    """What came of it."""

    case: Case
    answer: Answer
    own_mib: float
    """By how much the service grew at most."""
    children_mib: float
    """Of decoding processes, at most."""
    seconds: float
    faults: tuple[str, ...]
    """What was not as it should be."""


def settings_of(site: Site) -> Settings:
    """Those of its service."""
    before = dict(os.environ)
    os.environ.update(site.settings)
    try:
        return Settings()
    finally:
        os.environ.clear()
        os.environ.update(before)


def most_own_mib(settings: Settings) -> float:
    """What reading one scan may take of the service's own memory: the longest header, and a volume twice over."""
    return (settings.read.max_header_bytes + 2 * 2 * settings.read.max_voxels) / MIB


def most_children_mib(settings: Settings) -> float:
    """What decoding may take."""
    return settings.read.decode_workers * settings.read.decode_memory_bytes / MIB


def tried(case: Case, site: Site, pid: int, folder: Path) -> Tried:
    """Do it, look at everything, and take away its files."""
    do = case.ready(site, folder)
    with Watch(pid) as watch:
        answer = do()
    shutil.rmtree(folder, ignore_errors=True)
    settings = settings_of(site)
    faults = [
        f"answered {answer.told}, not {' or '.join(map(str, case.expected))}" * (answer.told not in case.expected),
        f"a refusal that is no {case.form}" * (answer.status >= 400 and not _is_refusal(answer, case.form)),
        "Retry-After is missing" * (answer.status in (429, 503) and "retry-after" not in _lowered(answer)),
        "the patient is named in the answer" * any(secret in answer.text for secret in SECRETS),
        f"{watch.own_mib:.0f} MiB of memory" * (watch.own_mib > most_own_mib(settings)),
        f"{watch.children_mib:.0f} MiB of memory of children" * (watch.children_mib > most_children_mib(settings)),
        f"{watch.seconds:.0f} s" * (watch.seconds > settings.analysis_timeout_s),
    ]
    try:
        site.until_clean()
        faults += [f"the log or a metric names the patient: {line}" for line in site.secrets_told()[:1]]
    except (AssertionError, requests.RequestException) as error:
        faults.append(f"the service is not as it was: {error}")
    return Tried(case, answer, watch.own_mib, watch.children_mib, watch.seconds, tuple(filter(None, faults)))


def good_one_fails(site: Site, folder: Path) -> str:
    """The next good scan; gives what is wrong with its answer."""
    answer = site.post("/v1/predict", good_nifti(folder))
    shutil.rmtree(folder, ignore_errors=True)
    return "" if answer.told == (200, "") else f"a good scan was then answered {answer.told}"


def used_once(site: Site, folder: Path) -> None:
    """What is loaded when it is needed first is no cost of a hostile input."""
    assert not good_one_fails(site, folder)
    requests.get(f"{site.url}/v1/jobs/{finished_job(site)}/results/sr", timeout=120).raise_for_status()


def _is_refusal(answer: Answer, form: str) -> bool:
    told = json.loads(answer.text) if _lowered(answer).get("content-type", "").startswith(form) else {}
    return bool(told) and (form != PROTOCOL or list(told) == ["error"])


def _lowered(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}
