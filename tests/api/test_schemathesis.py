"""Requests made from the OpenAPI document, all of it, against the service as it is installed: every check holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.hostile.site import ROOT, site

EXAMPLES = 3
"""Of each operation, beside those of the document and one for each way to break a rule of a schema."""


@pytest.mark.timeout(900)  # a minute of its own, and much more on a machine that does something else
def test_every_operation_answers_as_it_is_described(tmp_path: Path, tiny_model_store: Path) -> None:
    (tmp_path / "pacs.toml").write_text("[[rules]]\nname = 'any'\n")
    program = Path(sys.executable).with_name("st")
    with site(tmp_path / "site", tiny_model_store, LUNGNODULE_PACS_CONFIG=tmp_path / "pacs.toml") as place:
        service = place.serve()
        # Asked for once before: it is made when it is first asked for, and schemathesis waits ten seconds at most.
        paths = requests.get(f"{place.url}/openapi.json", timeout=120).json()["paths"]
        done = subprocess.run(
            [program, "--config-file", ROOT / "tests/api/schemathesis.toml", "run", f"{place.url}/openapi.json",
             "--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "1", "--no-color",
             "--generation-database", "none", "--suppress-health-check", "all"],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        operations = sum(
            method in ("get", "put", "post", "delete", "patch") for path in paths.values() for method in path
        )
        assert f"Tested: {operations}" in done.stdout
        assert service.poll() is None
        assert '"code": "internal_error"' not in place.log.read_text()
        place.until_clean()
