"""Hours of good and hostile traffic with random kills: is every acknowledged job answered right, and memory flat?

    python -m tests.benchmarks.soak --hours 2 --json build/soak.json
    python -m tests.benchmarks.soak --report build/soak.json

By hand, not in CI. A service and a worker as they are installed, with the tiny model of the tests, on small phantoms;
the inputs are those of `tests.hostile.cases`. In the first two fifths and in the last tenth of the time one of the two
processes is killed (kill -9) every minute or so; in between none is, and memory is looked at. Paced to a share of a
core.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.benchmarks.machine import described
from tests.benchmarks.measuring import ROOT, say
from tests.benchmarks.soak_report import MEASURED_FROM, QUIET, report
from tests.benchmarks.soak_scans import Scan, scans, what_was_found
from tests.hostile.cases import HOSTILE, Case
from tests.hostile.site import LIMITS, Site, site
from tests.tiny_model import write_tiny_model

KILL_EVERY_S = 75.0
SAMPLE_EVERY_S = 10.0
PATIENCE_S = 180.0
SHARE_OF_A_CORE = 0.33
WEIGHTS = {"job": 45, "predict": 10, "hostile": 25, "hostile job": 10, "traffic": 10}
SETTINGS = {
    **LIMITS,
    # It runs beside other work: what is slow for that reason is not what is looked for.
    "LUNGNODULE_UPLOAD_GRACE_S": 10,
    "LUNGNODULE_HEADER_TIMEOUT_S": 5,
    "LUNGNODULE_DOCUMENT_TIMEOUT_S": 5,
    "LUNGNODULE_ANALYSIS_TIMEOUT_S": 180,
    "LUNGNODULE_READ__DECODE_TIMEOUT_S": 120,
    "LUNGNODULE_WORKER_LEASE_S": 10,
    "LUNGNODULE_MAX_ATTEMPTS": 50,  # kills are meant here, not scans that kill
    "LUNGNODULE_MAX_QUEUED": 1000,
}


@dataclass
class Soak:
    """What is going on, and what has been seen."""

    place: Site
    seconds: float
    kill_every_s: float
    chance: random.Random
    scans: list[Scan]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id, what each acknowledged one is to be answered: ``nodules`` or ``codes``."""
    seen: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    children: dict[int, float] = field(default_factory=dict)
    """Every child process of a process that was killed, by pid, with the time it was made."""
    number: int = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def is_quiet(self) -> bool:
        return QUIET[0] <= self.elapsed / self.seconds < QUIET[1]

    def count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1

    def start(self, who: str) -> None:
        self.processes[who] = self.place.serve() if who == "service" else self.place.start("worker")

    def kill_one(self) -> None:
        who = self.chance.choice(["service", "worker"])
        process = psutil.Process(self.processes[who].pid)
        self.children |= {child.pid: child.create_time() for child in process.children(recursive=True)}
        # Counted before it happens: a client that is cut off looks at once whether that was a kill.
        self.count(f"kills of the {who}")
        process.kill()
        self.processes[who].wait()
        self.start(who)

    def sample(self) -> None:
        for who, process in self.processes.items():
            try:
                told = psutil.Process(process.pid)
                size, files, threads = told.memory_info().rss, told.num_fds(), told.num_threads()
            except psutil.Error:
                self.wrong.append(f"the {who} ended by itself after {self.elapsed:.0f} s")
                self.start(who)
                continue
            rss = round(size / 2**20, 1)
            self.samples.append(
                {"t": round(self.elapsed), "who": who, "pid": process.pid, "mib": rss, "fds": files, "threads": threads}
            )

    def send_job(self, parts: list[tuple[str, tuple[str, bytes]]], expected: dict[str, Any]) -> None:
        """With one key until it is acknowledged, and now and then once more."""
        key = {"Idempotency-Key": f"soak-{self.number}"}
        ids = {self._acknowledged(parts, key) for _ in range(1 + (self.chance.random() < 0.1))}
        if len(ids) != 1:
            self.wrong.append(f"one key made the jobs {ids}")
        self.jobs |= dict.fromkeys(ids, expected)

    def _acknowledged(self, parts: list[tuple[str, tuple[str, bytes]]], key: dict[str, str]) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = requests.post(f"{self.place.url}/v1/jobs", files=parts, headers=key, timeout=PATIENCE_S)
                if answer.status_code == 202:
                    return str(answer.json()["id"])
                self.count(f"job answered {answer.status_code}, sent again")
            except requests.RequestException:
                self.count("job cut off by a kill, sent again")
            if time.monotonic() > deadline:
                raise AssertionError("the service takes no job")
            time.sleep(0.5)

    def predict(self, scan: Scan) -> None:
        try:
            answer = requests.post(f"{self.place.url}/v1/predict", files=scan.parts(self.number), timeout=PATIENCE_S)
        except requests.RequestException:
            self.count("request cut off by a kill")
            return
        if answer.status_code in (408, 429, 503):
            self.count(f"good scan turned away with {answer.status_code}")
            return
        if answer.status_code != 200 or not scan.matches(what_was_found(answer.json())):
            self.wrong.append(f"predict of {scan.name}: {answer.status_code} {answer.text[:300]}")
        self.count("good scans answered at once")

    def try_hostile(self, case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder:
            do, kills = case.ready(self.place, Path(folder)), self.kills
            try:
                answer = do()
            except requests.RequestException:
                answer = None
        if answer is None or (answer.told not in case.expected and kills != self.kills):
            self.count("request cut off by a kill")
        elif answer.told not in case.expected and answer.status in (429, 503):
            self.count(f"hostile input answered {answer.status}")
        else:
            self.count("hostile inputs answered")
            if answer.told not in case.expected:
                self.wrong.append(f"{case.id}: {answer.told}, expected {case.expected}")

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.seen.items() if what.startswith("kills"))

    def hostile_job(self, case: Case) -> None:
        assert case.make is not None
        with tempfile.TemporaryDirectory() as folder:
            parts = [("files", (path.name, path.read_bytes())) for path in case.make(Path(folder))]
        self.send_job(parts, {"case": case.id, "codes": [code for _, code in case.expected]})

    def step(self, pool: ThreadPoolExecutor) -> None:
        """One thing a client does."""
        self.number += 1
        scan = self.chance.choice(self.scans)
        what = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if what == "job":
            self.send_job(scan.parts(self.number), {"scan": scan.name})
        elif what == "predict":
            self.predict(scan)
        elif what == "hostile":
            self.try_hostile(self.chance.choice(FILES))
        elif what == "hostile job":
            # An empty upload is refused before there is a job.
            self.hostile_job(self.chance.choice([case for case in FILES if case.row != 1]))
        else:
            pool.submit(self._watched, self.chance.choice(TRAFFIC))

    def _watched(self, case: Case) -> None:
        try:
            self.try_hostile(case)
        except Exception as error:  # noqa: BLE001 - a thread's end is seen by nobody
            self.wrong.append(f"{case.id}: {error!r}")


FILES = [case for case in HOSTILE if case.make is not None]
TRAFFIC = [case for case in HOSTILE if case.act is not None and case.row != 41]  # keys have their own check here


def run(soak: Soak, save: Any) -> None:
    """Until the time is over: traffic, kills, samples."""
    due = {"kill": 0.0, "sample": 0.0, "save": 60.0}
    own, used_s = psutil.Process(), {}
    with ThreadPoolExecutor(4) as pool:
        while soak.elapsed < soak.seconds:
            soak.step(pool)
            if soak.elapsed > due["kill"]:
                if not soak.is_quiet and soak.number > 1:
                    soak.kill_one()
                due["kill"] = soak.elapsed + soak.kill_every_s * soak.chance.uniform(0.4, 1.6)
            if soak.elapsed > due["sample"]:
                soak.sample()
                due["sample"] = soak.elapsed + SAMPLE_EVERY_S
            if soak.elapsed > due["save"]:
                save()
                due["save"] = soak.elapsed + 60.0
            _pace(soak, own, used_s)


def _pace(soak: Soak, own: psutil.Process, used_s: dict[int, float]) -> None:
    """Wait until what all processes have used is within their share of the time that has passed."""
    while soak.elapsed < soak.seconds:
        for process in [own, *own.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            used_s[process.pid] = times.user + times.system
        if sum(used_s.values()) < SHARE_OF_A_CORE * soak.elapsed + 20.0:
            return
        time.sleep(0.5)


def settle(soak: Soak) -> dict[str, Any]:
    """Wait for every job, compare each with what it should say, and look for what is left."""
    place, states = soak.place, {}
    deadline = time.monotonic() + 900.0
    for job_id in soak.jobs:
        while True:
            job = requests.get(f"{place.url}/v1/jobs/{job_id}", timeout=PATIENCE_S).json()
            if job["state"] not in ("queued", "running") or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        states[job_id] = job
    checked = {"good": 0, "good_right": 0, "hostile": 0, "hostile_right": 0, "lost": 0, "twice": 0, "attempts": 0}
    for job_id, job in states.items():
        kind = "good" if "scan" in soak.jobs[job_id] else "hostile"
        is_right = _is_right(soak, job_id, job)
        checked[kind] += 1
        checked[f"{kind}_right"] += is_right
        checked["lost"] += job["state"] in ("queued", "running", "parked", "cancelled")
        checked["attempts"] += len(job["attempts"])
        checked["twice"] += _endings(place, job_id) != 1
        if not is_right:
            soak.wrong.append(f"job {soak.jobs[job_id]}: {job['state']} {job.get('problem')}")
    checked["jobs_nobody_was_told_of"] = len(_listed(place) - set(soak.jobs) - {place.finished})
    checked["secrets_told"] = len(place.secrets_told())
    return checked


def _is_right(soak: Soak, job_id: str, job: dict[str, Any]) -> bool:
    expected = soak.jobs[job_id]
    if "codes" in expected:
        code = "" if job["state"] == "succeeded" else (job.get("problem") or {}).get("code", job["state"])
        return code in expected["codes"]
    if job["state"] != "succeeded":
        return False
    result = requests.get(f"{soak.place.url}/v1/jobs/{job_id}/result", timeout=PATIENCE_S).json()
    (scan,) = [scan for scan in soak.scans if scan.name == expected["scan"]]
    return scan.matches(what_was_found(result))


def _endings(place: Site, job_id: str) -> int:
    """How often a job is said to have ended."""
    text = requests.get(f"{place.url}/v1/jobs/{job_id}/events", timeout=PATIENCE_S).text
    kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    return sum(kind in ("succeeded", "failed", "parked", "cancelled") for kind in kinds)


def _listed(place: Site) -> set[str]:
    found: set[str] = set()
    link = f"{place.url}/v1/jobs?limit=200"
    while link:
        page = requests.get(link, timeout=PATIENCE_S).json()
        found |= {job["id"] for job in page["jobs"]}
        link = f"{place.url}{page['next']}" if page["next"] else ""
    return found


def end(soak: Soak) -> dict[str, Any]:
    """Stop both as they should be stopped; nothing of an upload and no child may be left."""
    for process in soak.processes.values():
        process.terminate()
    codes = [process.wait(timeout=120) for process in soak.processes.values()]
    alive = [pid for pid, made in soak.children.items() if _is_alive(pid, made)]
    left = [str(path.relative_to(soak.place.folder)) for path in [*soak.place.temp.glob("*"), *soak.place.leftovers()]]
    return {"exit_codes": codes, "orphans": len(alive), "left_on_disk": left}


def _is_alive(pid: int, made: float) -> bool:
    try:
        return psutil.Process(pid).create_time() == made
    except psutil.Error:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--kill-every", type=float, default=KILL_EVERY_S, help="seconds on average, while any")
    parser.add_argument("--json", type=Path, default=Path("build/soak.json"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="print the table of an earlier run and do nothing else")
    asked = parser.parse_args()
    if asked.report:
        sys.exit(report(json.loads(asked.report.read_text())))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        write_tiny_model(folder / "models")
        place = stack.enter_context(site(folder / "site", folder / "models", **SETTINGS))
        soak = Soak(place, asked.hours * 3600, asked.kill_every, random.Random(asked.seed), scans(folder))
        soak.start("service")
        soak.start("worker")
        soak.began = time.monotonic()
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)

        def save(**more: Any) -> None:
            told = {
                "machine": described(), "commit": commit.stdout.strip(), "hours": asked.hours, "quiet": QUIET,
                "measured_from": MEASURED_FROM, "elapsed_s": soak.elapsed, "seen": soak.seen, "wrong": soak.wrong,
                "jobs": len(soak.jobs), "samples": soak.samples, **more,
            }  # fmt: skip
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(told))
            newest = [f"{one['who']} {one['mib']} MiB {one['fds']} fds" for one in soak.samples[-2:]]
            say(f"{soak.elapsed:.0f} s, {len(soak.jobs)} jobs, {soak.kills} kills, wrong {len(soak.wrong)}; {newest}")

        run(soak, save)
        checked = settle(soak)
        save(checked=checked, end=end(soak))
        sys.exit(report(json.loads(asked.json.read_text())))


if __name__ == "__main__":
    main()
