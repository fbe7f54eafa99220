"""A short time of fuzzing for each target; what longer runs found has tests beside the code that was mended."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.hostile.fuzz import NAMES, fuzz, mutated, outcome, report
from tests.hostile.fuzz_targets import TARGETS, Target, write_seeds

MUTANTS = 400
"""Of each target: about a second."""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_crashes_it(name: str, tmp_path: Path) -> None:
    """A new seed for every run would find more, and could not be repeated."""
    chance, target = random.Random(name), TARGETS[name]
    write_seeds(target, tmp_path / "seeds")
    seeds = [path.read_bytes() for path in sorted((tmp_path / "seeds").iterdir())]
    crashes = {}
    for number in range(MUTANTS):
        data = mutated(chance.choice(seeds), chance)
        (work := tmp_path / str(number)).mkdir()
        if (crash := outcome(target, data, work)) is not None:
            crashes[crash[0]] = crash[1]
        shutil.rmtree(work)
    assert not crashes


def test_the_fuzzer_guided_by_coverage_runs_here(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is there for Linux only")
    told = fuzz("manifest", 10.0, tmp_path)
    assert told["crashes"] == []
    assert told["executions"] > 0
    assert "| manifest |" in report(tmp_path)


def test_what_starts_the_fuzzer_may_be_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on memory is the fuzzer's own, whatever this process holds."""
    pytest.importorskip("atheris", reason="atheris is there for Linux only")
    held = bytearray(700 << 20)
    held[::4096] = b"x" * len(held[::4096])
    monkeypatch.setattr("tests.hostile.fuzz.MEMORY_MIB", 600)
    assert fuzz("manifest", 5.0, tmp_path)["crashes"] == []


def test_the_inputs_to_begin_with_are_good(tmp_path: Path) -> None:
    """A target that refuses all of them would fuzz nothing but its first line."""
    assert set(TARGETS) == set(NAMES)
    for name, target in TARGETS.items():
        write_seeds(target, tmp_path / name)
        accepted = 0
        for path in (tmp_path / name).iterdir():
            work = tmp_path / f"{name}-{path.name}"
            work.mkdir()
            try:
                target.run(path.read_bytes(), work)
                accepted += 1
            except target.expected:
                pass
        assert accepted, name


def test_what_is_not_expected_is_a_crash(tmp_path: Path) -> None:
    def fails(data: bytes, _: Path) -> None:
        raise ValueError(data[0])

    name, text = outcome(Target(lambda _: [], fails), b"x", tmp_path) or ("", "")
    assert name.startswith("ValueError-test_fuzz-")
    assert "Traceback" in text
