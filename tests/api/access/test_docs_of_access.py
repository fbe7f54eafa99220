"""The commands of docs/access.md run against a service, and its tables say what the program does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from app.api.access.needs import NEEDS, Need
from app.cli.client import running_service

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs/access.md").read_text(encoding="utf-8")
SAID = {
    "nothing": (Need.PROBE, Need.OPEN),
    "nothing, or `read`": (Need.PAGE,),
    "`submit`": (Need.SUBMIT,),
    "`read`": (Need.READ,),
    "`operate`": (Need.OPERATE,),
    "`operate`, or nothing": (Need.FIGURES,),
}


def test_the_commands_run(tiny_model_store: Path, tmp_path: Path) -> None:
    (text,) = re.findall(r"<!-- run -->\n```bash\n(.*?)```", GUIDE, re.DOTALL)
    settings = {
        "LUNGNODULE_ACCESS": "required", "LUNGNODULE_MODEL_STORE": str(tiny_model_store), "LUNGNODULE_MODELS": "tiny",
        "LUNGNODULE_DEVICE": "cpu", "LUNGNODULE_DATA_DIR": str(tmp_path / "data"),
    }  # fmt: skip
    with running_service(settings) as service:
        # The tiny model finds nothing, so the demonstration's own judgement is no matter here.
        script = text.replace("http://127.0.0.1:8000", service.url).replace(
            f"lungnodule demo --url {service.url}", f"lungnodule demo --url {service.url} >demo.txt 2>&1 || test $? = 1"
        )
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f'{script}\necho "$key"'],
            capture_output=True, text=True, check=False, timeout=240, cwd=tmp_path,
            env={**os.environ, **settings, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "credentials" not in (tmp_path / "demo.txt").read_text()
        assert '"jobs":[]' in done.stdout
        assert "2 revoked" in done.stdout
        key = done.stdout.splitlines()[-1]
        answer = subprocess.run(
            ["curl", "-sS", "-H", f"X-API-Key: {key}", f"{service.url}/v1/jobs"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert '"code":"credentials_invalid"' in answer.stdout


def test_the_table_of_routes_is_that_of_the_program() -> None:
    told: dict[tuple[str, str], str] = {}
    for needs, routes in re.findall(r"^\| (.+?) \| ((?:GET|POST|DELETE) .+) \|$", GUIDE, re.MULTILINE):
        for route in routes.split(", "):
            method, _, path = route.partition(" ")
            told[method, path] = needs
    assert told.keys() == NEEDS.keys()
    assert [key for key, needs in told.items() if NEEDS[key] not in SAID[needs]] == []


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/\S+\.py)`", GUIDE)
    assert len(named) == 9
    assert [path for path in named if not (ROOT / path).is_file()] == []
