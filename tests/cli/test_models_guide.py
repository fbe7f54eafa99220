"""Every example in docs/models.md that can run here is run, on tiny models of the names that it uses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from app.inference.manifest import AnyCharacteriser
from app.main import create_app
from app.settings import Settings
from tests.jobs.installations import HandQueue
from tests.served import served
from tests.tiny_model import write_tiny_model
from tests.training.luna16_phantoms import PHANTOMS, write_luna16

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run: (\w+)[^\n]*-->\n```\w+\n(.*?)```", GUIDE, re.DOTALL)
RUN = {"shell": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "ignore", "-c"]}
EXPECTED = ("    CPM  ", "lungnodule minus keras-example, 2 scans", '"crops"', "nodule probability [")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    write_luna16(folder / "LUNA16", PHANTOMS[:2])
    write_tiny_model(folder / "store", name="lungnodule", version="0.2.0")
    write_tiny_model(folder / "store", name="keras-example")
    return folder


@pytest.fixture(scope="module")
def address(world: Path) -> Iterator[str]:
    settings = Settings(model_store=world / "store", data_dir=world / "data", device="cpu", threads=1)
    app = create_app(settings, make_queue=lambda _database: HandQueue())
    with served(app) as port:
        yield f"127.0.0.1:{port}"


def test_the_examples_run(world: Path, address: str) -> None:
    environment = os.environ | {
        "LUNGNODULE_MODEL_STORE": str(world / "store"),
        "LUNGNODULE_DEVICE": "cpu",
        "LUNGNODULE_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    run = [(how, text) for how, text in BLOCKS if how in RUN]
    assert len(run) == len(EXPECTED)
    for (how, text), said in zip(run, EXPECTED, strict=True):
        done = subprocess.run(
            [*RUN[how], text.replace("127.0.0.1:8000", address)],
            cwd=world, env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert said in done.stdout


def test_the_manifests_of_the_guide_are_some() -> None:
    shown = re.findall(r"<!-- manifest -->\n```json\n(.*?)```", GUIDE, re.DOTALL)
    entries = [TypeAdapter(AnyCharacteriser).validate_json(text) for text in shown]
    assert [entry.kind for entry in entries] == ["axial-2d", "crops-3d"]


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?://|#)([^)#]+)\)", GUIDE))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()
