"""`lungnodule pacs serve` receives without HTTP and ends as told; wrong usage is one line."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from app.cli.exits import ExitCode
from tests.pacs.orthanc import echoscu, free_port, storescu, until
from tests.pacs.pacs_worlds import write_series

ROOT = Path(__file__).resolve().parents[2]


def test_a_scan_sent_to_it_becomes_a_job(tmp_path: Path, tiny_model_store: Path) -> None:
    port = free_port()
    config = tmp_path / "pacs.toml"
    config.write_text(
        f'[[rules]]\nname = "any"\nmin_instances = 3\n[receive]\ncomplete_after_s = 0.5\n'
        f'[dimse]\nport = {port}\ncalling_ae_titles = ["CT1"]\n'
    )
    environment = os.environ | {
        "LUNGNODULE_DATA_DIR": str(tmp_path / "data"), "LUNGNODULE_MODEL_STORE": str(tiny_model_store),
        "LUNGNODULE_MODELS": "tiny", "LUNGNODULE_DEVICE": "cpu", "LUNGNODULE_THREADS": "1",
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "pacs", "serve", "--config", str(config)],
            cwd=ROOT, env=environment, stdout=out, stderr=out,
        )  # fmt: skip

    def is_there() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        return echoscu(port, called="LUNGNODULE", calling="CT1") == 0

    def jobs() -> list[tuple[str]]:
        with closing(sqlite3.connect(tmp_path / "data/jobs.sqlite")) as database:
            return list(database.execute("SELECT state FROM jobs"))

    try:
        until(is_there, "it listens")
        assert storescu(port, write_series(tmp_path / "ct"), called="LUNGNODULE") == 0
        assert until(jobs, "there is a job") == [("queued",)]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()[-3000:]
    assert "PHANTOM" not in log.read_text()


@pytest.mark.usefixtures("on_tiny_model")
def test_the_service_does_not_start_on_a_configuration_that_does_not_fit(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pacs.toml"
    config.write_text('[[rules]]\nname = "any"\noperating_point = "no-such"\n')
    monkeypatch.setenv("LUNGNODULE_PACS_CONFIG", str(config))
    done = run("serve", "--port", "0")
    assert (done.exit_code, "error[unknown_operating_point]" in done.output + done.stderr) == (2, True)


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("pacs", "serve")])
@pytest.mark.usefixtures("on_tiny_model")
def test_a_dimse_port_that_is_taken_is_named_with_its_setting(
    run: Any, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "pacs.toml").write_text(f'[dimse]\nport = {port}\ncalling_ae_titles = ["CT1"]\n')
        monkeypatch.setenv("LUNGNODULE_PACS_CONFIG", str(tmp_path / "pacs.toml"))
        monkeypatch.setenv("LUNGNODULE_DATA_DIR", str(tmp_path / "data"))
        done = run(*command)
    said = done.output + done.stderr
    assert done.exit_code == ExitCode.SYSTEM
    assert "error[cannot_listen_dimse]" in said
    assert f"port {port}" in said
    assert "[dimse]" in said


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), "pacs_not_configured"), (("--config", "no-such-file.toml"), "pacs_config_invalid")],
)
@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.usefixtures("on_tiny_model")
def test_without_a_configuration_it_says_so(run: Any, command: str, arguments: tuple[str, ...], code: str) -> None:
    done = run("pacs", command, *arguments)
    assert done.exit_code == 2
    assert f"error[{code}]" in done.output + done.stderr
