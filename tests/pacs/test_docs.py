"""Every example in docs/pacs.md that can run here is run, and the conformance statement says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.imaging.confidentiality_profile import BASIC_PROFILE, METHOD_CODES, Action
from app.imaging.transfer_syntax import TRANSFER_SYNTAXES
from app.main import create_app
from app.pacs.config import Listener, PacsConfig
from app.pacs.errors import FailureReason
from app.pacs.instances import ACCEPTED_SYNTAXES, SOP_CLASSES
from app.settings import Settings
from tests.api.standins import Recorder, make_model, shelved
from tests.jobs.installations import HandQueue
from tests.pacs.orthanc import program
from tests.pacs.pacs_worlds import write_series
from tests.served import served

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/pacs.md").read_text(encoding="utf-8")
STATEMENT = (ROOT / "docs/dicom-conformance.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- run: (?P<how>\w+)[^\n]*-->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
RUN = {"shell": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"], "node": ["node", "-e"]}
CSHARP = "mcs -r:System.Net.Http.dll -out:send.exe send.cs && mono send.exe"
EXAMPLES = {match["how"]: match["text"] for match in BLOCK.finditer(GUIDE)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "pacs.toml").write_text("[[rules]]\nname = 'any'\n")
    settings = Settings(data_dir=folder / "data", pacs_config=folder / "pacs.toml")
    app = create_app(
        settings, load=lambda _settings: shelved(make_model()), run=Recorder(), make_queue=lambda _database: HandQueue()
    )
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("how", [*RUN, "csharp"])
def test_the_examples_store_a_series(how: str, service: str, tmp_path: Path) -> None:
    if how == "node":
        program("node", "nodejs")
    write_series(tmp_path / "study")
    text = EXAMPLES[how].replace("http://127.0.0.1:8000", service)
    command = [*RUN[how], text] if how in RUN else [*RUN["shell"], CSHARP]
    if how == "csharp":
        program("mcs", "mono-mcs libmono-system-net-http4.0-cil")
        program("mono", "mono-runtime")
        (tmp_path / "send.cs").write_text(text)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = '"00081199"' if how in ("shell", "csharp") else "4 stored"
    assert expected in done.stdout
    assert "00081198" not in done.stdout


def test_the_configuration_of_the_guide_is_one() -> None:
    (text,) = re.findall(r"<!-- config -->\n```toml\n(.*?)```", GUIDE, re.DOTALL)
    config = PacsConfig.model_validate(tomllib.loads(text))
    assert set(config.targets) == {"archive", "workstation"}
    assert config.dimse is not None


def test_the_statement_lists_every_class_syntax_and_reason() -> None:
    rows = [line for line in STATEMENT.splitlines() if line.startswith("| ")]
    said = {uid for line in rows for uid in re.findall(r"\| (1\.2\.840[\d.]+) \|", line)}
    assert said == {*SOP_CLASSES, *ACCEPTED_SYNTAXES, "1.2.840.10008.1.1"}
    assert set(ACCEPTED_SYNTAXES) < set(TRANSFER_SYNTAXES)
    listed = {int(code, 16) for line in rows for code in re.findall(r"^\| ([0-9A-F]{4}) \|", line)}
    assert listed == {0, *FailureReason}


def test_every_replaced_attribute_is_in_the_description_of_deidentification() -> None:
    said = (ROOT / "docs/deidentification.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([UZDKX]), [^|]+\| ([^|]+) \|$", said, re.MULTILINE))
    for action in (Action.UID, Action.EMPTY, Action.DUMMY):
        assert set(rows[action].split(", ")) == {name for name, known in BASIC_PROFILE.items() if known is action}
    shown = {code for code, _ in METHOD_CODES.values()}
    assert shown <= set(re.findall(r"\((\d{6})\)", STATEMENT))


def test_the_statement_says_the_defaults() -> None:
    settings = Listener(calling_ae_titles=("X",))
    for said in (
        f"AE title `{settings.ae_title}`, port {settings.port}, address {settings.host}",
        f"`max_associations` ({settings.max_associations})",
        f"`max_pdu_bytes` ({settings.max_pdu_bytes})",
        f"`idle_timeout_s` ({settings.idle_timeout_s:g})",
    ):
        assert said in STATEMENT
