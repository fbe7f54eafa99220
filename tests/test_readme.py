"""Every command in the README is run, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.cli.client import running_service
from app.inference.model_store import list_models

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
URL_IN_README = "http://127.0.0.1:8000"

BLOCK = re.compile(r"(?:<!-- run: (?P<how>[^\n]*) -->\n)?```(?P<language>bash|python)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block and how it is to be tried: make, shell, python, service, or `no, REASON`."""

    how: str | None
    text: str


BLOCKS = [Block(match["how"], match["text"]) for match in BLOCK.finditer(README)]


def blocks(how: str) -> list[str]:
    return [block.text for block in BLOCKS if block.how == how]


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    store = ROOT / "model_store"
    if not list_models(store):
        pytest.skip("model_store/ holds no model yet")
    with running_service({"LUNGNODULE_MODEL_STORE": str(store)}) as running:
        yield running.url


def test_every_block_says_how_it_is_run():
    assert BLOCKS
    assert all(
        block.how in {"make", "shell", "python", "service"} or (block.how or "").startswith("no, ") for block in BLOCKS
    )


@pytest.mark.timeout(900)
def test_shell_and_python_blocks_run_in_order(service, tmp_path):
    binaries = Path(sys.executable).parent
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f'PATH="{binaries}:$PATH"\n')
    environment = os.environ | {
        "LUNGNODULE_MODEL_STORE": str(ROOT / "model_store"),
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    for block in BLOCKS:
        if block.how not in {"shell", "python"}:
            continue
        interpreter = ["bash", "-euo", "pipefail", "-c"] if block.how == "shell" else [sys.executable, "-c"]
        done = subprocess.run(
            [*interpreter, block.text.replace(URL_IN_README, service)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "findings/result.json").is_file()


def test_make_targets_exist():
    for line in "".join(blocks("make")).splitlines():
        command = line.split("#")[0].split()
        assert command[0] == "make"
        done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_service_is_started_as_the_readme_says():
    assert [block.split() for block in blocks("service")] == [["lungnodule", "serve"]]


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
