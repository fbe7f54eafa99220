"""`lungnodule pacs`: ask whether each PACS answers; keep the connection going apart from the service."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import EXIT_CODES_HELP, ExitCode, errors_in_one_line, fail
from app.cli.setup import quiet_libraries, settings_with

if TYPE_CHECKING:
    from app.settings import Settings

ConfigOption = Annotated[
    Path | None, typer.Option(help="The configuration file; without it that of LUNGNODULE_PACS_CONFIG.")
]


def command_group() -> typer.Typer:
    """The group `pacs`."""
    group = typer.Typer(help="Connect to a PACS.", no_args_is_help=True)
    group.command("check", epilog=EXIT_CODES_HELP)(check)
    group.command("serve", epilog=EXIT_CODES_HELP)(serve)
    return group


def check(config: ConfigOption = None) -> None:
    """Read the configuration and ask every PACS that it names: C-ECHO, QIDO-RS, or Orthanc's log of changes.

    For example:

    - `lungnodule pacs check --config pacs.toml`
    """
    from app.pacs.config import read_pacs_config
    from app.pacs.errors import PacsConfigInvalid, PacsTroubleError
    from app.pacs.installation import checks_of

    with errors_in_one_line():
        quiet_libraries()
        read = read_pacs_config(_config_path(settings_with(pacs_config=config)))
        failed = 0
        for name, ask in checks_of(read).items():
            try:
                typer.echo(f"ok      {name}: {ask()}")
            except (PacsTroubleError, PacsConfigInvalid) as error:
                failed += 1
                typer.echo(f"failed  {name}: {error.message} [{error.code}]")
        typer.echo(f"{len(read.rules)} rules; DIMSE provider {'on' if read.dimse else 'off'}")
        if failed:
            fail(ExitCode.CHECK_FAILED, "pacs_check", f"{failed} of the PACS did not answer as they should.")


def serve(config: ConfigOption = None) -> None:
    """Receive, poll, make jobs and send results back, without HTTP and without analysing.

    It needs the data folder and the database of the workers. `lungnodule serve` does the same beside its API.

    For example:

    - `lungnodule pacs serve --config pacs.toml`
    """
    from app.api.model_choice import Models, open_models
    from app.api.pacs_desk import opened_pacs, stored_objects
    from app.jobs.installation import open_jobs
    from app.logs import configure_logs
    from app.pacs.installation import pacs_running

    with errors_in_one_line():
        stop = threading.Event()
        # Before the database is opened, which may take a while.
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        settings = settings_with(pacs_config=config)
        _config_path(settings)
        configure_logs(settings.log_level)
        found = open_models(settings)
        with open_jobs(settings) as jobs:
            # So that what a rule asks for is checked against what there is; manifests are enough for that.
            models = Models(found.registry, found.named, jobs.activations)
            with opened_pacs(jobs, models, stored_objects) as pacs:
                if pacs is not None:
                    with pacs_running(pacs):
                        stop.wait()


def _config_path(settings: Settings) -> Path:
    if settings.pacs_config is None:
        fail(ExitCode.USAGE, "pacs_not_configured", "Name a file by --config or LUNGNODULE_PACS_CONFIG.")
    return settings.pacs_config
