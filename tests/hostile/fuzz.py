"""Coverage-guided fuzzing (atheris) of everything that takes bytes from outside.

    python -m tests.hostile.fuzz --target zip --minutes 10
    python -m tests.hostile.fuzz --minutes 60            # all targets in turn, the time divided among them
    python -m tests.hostile.fuzz --report build/fuzz     # the table of what was done so far

The fuzzer runs in a child with limits on memory and on the time of one input. A crash is kept under ``build/fuzz`` with
what made it and its traceback, once for each place in the code, and fuzzing goes on; `test_fuzz` keeps those that were
found. What was learnt of the input's form stays in ``build/fuzz/<target>/corpus`` for the next run.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("build/fuzz")
MEMORY_MIB = 2048
INPUT_S = 25
GUIDING = {"reading": ("pydicom.filereader", "pydicom.dataset"), "multipart": ("python_multipart",)}
"""Packages whose coverage guides, beside our own."""
_OF_A_SMALL_PARENT = ("sh", "-c", '"$@"; exit $?', "sh")
"""Linux counts what a process held when it was forked as memory of the program that it then runs, and libFuzzer
believes it: one that a large process starts, as a worker of pytest is, would be over the limit from its beginning."""
NAMES = ("reading", "zip", "multipart", "manifest", "json", "metaimage", "nifti", "nrrd", "bundle")


def fuzz(name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Fuzz one target for so long; gives what came of it, which is also written beside the crashes."""
    place = folder / name
    (place / "crashes").mkdir(parents=True, exist_ok=True)
    began, executions, slowest_s, log = time.monotonic(), 0, 0, place / "log"
    while (left := seconds - (time.monotonic() - began)) > 1:
        command = [
            *_OF_A_SMALL_PARENT, sys.executable, "-m", "tests.hostile.fuzz", "--child", name, "--folder", str(folder),
            str(place / "corpus"), f"-max_total_time={int(left)}", f"-timeout={INPUT_S}",
            f"-rss_limit_mb={MEMORY_MIB}", "-print_final_stats=1", f"-artifact_prefix={place / 'crashes'}/",
        ]  # fmt: skip
        with log.open("wb") as out:
            done = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False, timeout=left + 300
            )
        text = log.read_text(errors="replace")
        counts = [int(found) for found in re.findall(r"^#(\d+)\s", text, re.MULTILINE)]
        executions += max([*counts, *map(int, re.findall(r"executed_units: (\d+)", text))], default=0)
        slowest_s = max([slowest_s, *map(int, re.findall(r"slowest_unit_time_sec: (\d+)", text))])
        if done.returncode and not counts:
            raise RuntimeError(f"{name} cannot be fuzzed:\n{text[-3000:]}")
    told = {
        "target": name,
        "seconds": round(time.monotonic() - began, 1),
        "executions": executions,
        "crashes": sorted(path.name for path in (place / "crashes").iterdir() if path.suffix != ".txt"),
        "slowest_s": slowest_s,
    }
    with (folder / "runs.jsonl").open("a") as stream:
        stream.write(json.dumps(told) + "\n")
    return told


def child(name: str, folder: Path, arguments: list[str]) -> None:
    """The fuzzer itself; never returns."""
    import atheris  # noqa: PLC0415

    with atheris.instrument_imports(include=["app", *GUIDING.get(name, ())], enable_loader_override=False):
        from tests.hostile.fuzz_targets import TARGETS, write_seeds  # noqa: PLC0415

    target = TARGETS[name]
    write_seeds(target, Path(arguments[0]))
    scratch = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)

    def one_input(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=scratch.name) as work:
            crash = outcome(target, data, Path(work))
        if crash is not None:
            kept = folder / name / "crashes" / crash[0]
            if not kept.exists():
                kept.write_bytes(data)
                kept.with_name(f"{crash[0]}.txt").write_text(crash[1])

    atheris.Setup(["fuzz", *arguments], one_input)
    atheris.Fuzz()


def outcome(target: Any, data: bytes, work: Path) -> tuple[str, str] | None:
    """None, or of a crash its name, by its kind and its place in the code, and its traceback."""
    import warnings  # noqa: PLC0415

    try:
        with warnings.catch_warnings(action="ignore"):
            target.run(data, work)
    except target.expected:
        return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/app/" in frame.filename] or list(frames)
        place = f"{Path(own[-1].filename).stem}-{own[-1].lineno}"
        return f"{type(error).__name__}-{place}", "".join(traceback.format_exception(error))
    return None


def mutated(data: bytes, chance: random.Random) -> bytes:
    """With a few bytes changed, a piece cut out, doubled or moved, or a number made extreme."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start, stop = sorted(chance.choices(range(len(made) + 1), k=2))
        kind = chance.randrange(6)
        if kind == 0:
            made[start : start + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            made[start : start + 4] = chance.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            )
        elif kind == 2:
            del made[start : min(stop, start + 64)]
        elif kind == 3:
            made[start:start] = made[start : min(stop, start + 64)]
        elif kind == 4:
            del made[stop:]
        else:
            made[start:start] = chance.randbytes(chance.randint(1, 8))
    return bytes(made)


def report(folder: Path) -> str:
    """What was done so far, added up, as a table."""
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    lines = ["| target | minutes | executions | slowest input, s | unique crashes |", "|---|---|---|---|---|"]
    rows = []
    for name in NAMES:
        own = [run for run in runs if run["target"] == name]
        crashes = {crash for run in own for crash in run["crashes"]}
        if own:
            slowest = max(run["slowest_s"] for run in own)
            rows.append((sum(run["seconds"] for run in own) / 60, sum(run["executions"] for run in own), len(crashes)))
            lines.append(f"| {name} | {rows[-1][0]:.1f} | {rows[-1][1]} | {slowest} | {rows[-1][2]} |")
    total = [sum(column) for column in zip(*rows, strict=True)]
    lines.append(f"| all | {total[0]:.1f} | {total[1]} | | {total[2]} |")
    return "\n".join(lines)


def main() -> None:
    if "--child" in sys.argv:
        at = sys.argv.index("--child")
        name, _, folder, *arguments = sys.argv[at + 1 :]
        child(name, Path(folder), arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=NAMES, action="append", help="left out: all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="print the table of earlier runs, nothing else")
    asked = parser.parse_args()
    if asked.report:
        print(report(asked.report))
        return
    names = asked.target or list(NAMES)
    found = 0
    for name in names:
        told = fuzz(name, 60 * asked.minutes / len(names), asked.folder)
        found += len(told["crashes"])
        print(json.dumps(told), flush=True)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
