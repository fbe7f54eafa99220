"""Rows 1 to 41 and 49 to 53 of the hostile inputs, sent to the service as it is installed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest
import requests

from tests.hostile import traffic
from tests.hostile.cases import HOSTILE, Case
from tests.hostile.dicom_files import name_that_is_a_program, program_in_the_preamble
from tests.hostile.site import LIMITS, Site, site
from tests.hostile.trying import good_one_fails, tried, used_once

ROWS = {row: list(cases) for row, cases in groupby(HOSTILE, key=lambda case: case.row)}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path
) -> Iterator[tuple[Site, subprocess.Popen[bytes]]]:
    with site(tmp_path_factory.mktemp("hostile"), tiny_model_store, **LIMITS) as made:
        process = made.serve()
        used_once(made, made.folder / "first")
        yield made, process


def test_every_row_that_is_an_input_is_there() -> None:
    assert list(ROWS) == [*range(1, 42), *range(49, 54)]
    assert len({case.id for case in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("row", ROWS)
def test_it_is_answered_and_nothing_else_happens(
    running: tuple[Site, subprocess.Popen[bytes]], tmp_path: Path, row: int
) -> None:
    made, process = running
    faults: dict[str, tuple[str, ...]] = {}
    for case in ROWS[row]:
        result = tried(case, made, process.pid, tmp_path / "files")
        if result.faults:
            faults[case.id] = (*result.faults, result.answer.text[:500])
    assert not faults
    assert process.poll() is None, made.log.read_text()[-3000:]
    assert good_one_fails(made, tmp_path / "good") == ""


def test_nothing_was_made_of_what_was_not_whole(running: tuple[Site, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """Of requests for jobs that were cut off, lied about their length or came too slowly there is no job."""
    made, process = running
    before = made.get("/v1/jobs?limit=200").text.count('"id"')
    for case in HOSTILE:
        if case.row in (36, 37, 38):
            assert tried(case, made, process.pid, tmp_path).faults == ()
    assert made.get("/v1/jobs?limit=200").text.count('"id"') == before


def test_threads_that_serve_at_once_share_their_memory(
    running: tuple[Site, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Else what each has held once stays its own, and the service grows for as long as it runs."""
    made, process = running
    case = next(case for case in HOSTILE if case.row == 11)
    assert case.make is not None
    files = case.make(tmp_path)
    with ThreadPoolExecutor(12) as clients:
        assert all(answer.status for answer in clients.map(lambda _: made.post("/v1/predict", files), range(24)))
    # 13 without sharing. One that outgrows 64 MiB goes on at another border, and is then counted there, too.
    assert made.arenas_of_threads(process.pid) <= 3


@pytest.mark.parametrize("make", [program_in_the_preamble, name_that_is_a_program])
def test_results_carry_nothing_on(
    running: tuple[Site, subprocess.Popen[bytes]], tmp_path: Path, make: Callable[[Path], list[Path]]
) -> None:
    """No preamble of the sender's goes to a PACS; a name with quotes and line breaks breaks no document."""
    made, _ = running
    job = json.loads(made.post("/v1/jobs", make(tmp_path)).text)["id"]
    made.until(lambda: made.get(f"/v1/jobs/{job}").text.count('"state":"succeeded"'), "the job is done")
    report = requests.get(f"{made.url}/v1/jobs/{job}/results/sr", timeout=120)
    assert report.content.startswith(bytes(128) + b"DICM"), report.text[:300]
    json.loads(made.get(f"/v1/jobs/{job}/results/fhir").text)


def test_a_wrong_answer_is_noticed(running: tuple[Site, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """The table tells faults apart from what is right."""
    made, process = running
    wrong = Case(1, "wrong", ((200, ""),), make=next(case.make for case in HOSTILE if case.row == 1))
    assert tried(wrong, made, process.pid, tmp_path).faults == ("answered (422, 'empty_upload'), not (200, '')",)


def test_refused_connections_are_counted(running: tuple[Site, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    made, _ = running

    def counted() -> dict[str, float]:
        lines = made.get("/metrics").text.splitlines()
        found = (re.match(r'lungnodule_connections_refused_total\{code="(\w+)"\} (\S+)', line) for line in lines)
        return {match[1]: float(match[2]) for match in found if match}

    before = counted()
    for act in (traffic.half_a_header, traffic.long_header, traffic.many_headers, traffic.not_http):
        act(made, tmp_path)
    codes = ("request_header_too_slow", "request_header_too_large", "too_many_headers", "malformed_request")
    assert [counted()[code] - before.get(code, 0) for code in codes] == [1, 1, 1, 1]
