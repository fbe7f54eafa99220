"""A PostgreSQL of our own: a cluster on a socket in a temporary folder, which may be killed; fresh databases in it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

_BINARIES = Path("/usr/lib/postgresql")
_PATIENCE_S = 60.0
_SETTINGS = "-c listen_addresses= -c fsync=off -c shared_buffers=16MB -c max_connections=60"


@dataclass(frozen=True)
class Postgres:
    """A running cluster."""

    folder: Path
    binaries: Path

    def url(self, database: str) -> str:
        """Of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start it, also after it was killed; returns when it answers."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._run(
                    "pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-t", "60",
                    "-o", f"{_SETTINGS} -k {self.folder}", "start",
                )  # fmt: skip
            except subprocess.CalledProcessError:
                # Its children outlive a killed postmaster for a moment, and the next one waits for none.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def kill(self) -> None:
        """Kill -9 of the postmaster; its children go with it."""
        os.kill(int((self.folder / "data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def stop(self) -> None:
        """Stop it, whatever is going on."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop", check=False)

    def initialise(self) -> None:
        """Make the cluster."""
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-N")

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        # It refuses to run as root. Output to a file: the server would keep a pipe open.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        with (self.folder / "out").open("ab") as out:
            subprocess.run(
                [*user, str(self.binaries / program), *arguments],
                check=check, stdout=out, stderr=out, cwd=self.folder, timeout=120,
            )  # fmt: skip


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A cluster; the test is skipped where there is no PostgreSQL, and fails in CI."""
    versions = sorted(_BINARIES.glob("*/bin/initdb"))
    if not versions:
        reason = "PostgreSQL's programs are not here: apt-get install postgresql"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    cluster = Postgres(folder, versions[-1].parent)
    try:
        cluster.initialise()
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(cluster: Postgres) -> Iterator[str]:
    """URL of an empty database, dropped afterwards."""
    name = f"jobs_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield cluster.url(name)
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
