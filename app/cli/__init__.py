"""`lungnodule`: the same analysis as the service, from a terminal or a script.

`--help` has to answer at once, so each command imports what it needs when it runs; at import there is only typer.
"""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import (
    analyse,
    audit,
    demo,
    doctor,
    grand_challenge,
    keys,
    mercure,
    models,
    pacs,
    phantom,
    risk,
    serve,
    worker,
)  # fmt: skip
from app.cli.exits import EXIT_CODES_HELP


def command_line() -> typer.Typer:
    """Build the command line; a new one at each call, so that tests share nothing."""
    line = typer.Typer(
        name="lungnodule",
        help="Find lung nodules in chest CT. Research use only, not for diagnosis.",
        epilog=EXIT_CODES_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a traceback with local variables would print the patient's header
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    line.callback()(_root)
    line.command("analyse", epilog=EXIT_CODES_HELP)(analyse.analyse)
    line.command("risk", epilog=EXIT_CODES_HELP)(risk.risk)
    line.command("serve", epilog=EXIT_CODES_HELP)(serve.serve)
    line.command("worker", epilog=EXIT_CODES_HELP)(worker.worker)
    line.add_typer(models.command_group(), name="models")
    line.add_typer(pacs.command_group(), name="pacs")
    line.add_typer(keys.command_group(), name="keys")
    line.command("audit", epilog=EXIT_CODES_HELP)(audit.audit)
    line.command("doctor", epilog=EXIT_CODES_HELP)(doctor.doctor)
    line.command("grand-challenge", epilog=EXIT_CODES_HELP)(grand_challenge.grand_challenge)
    line.command("mercure", epilog=EXIT_CODES_HELP)(mercure.mercure)
    line.command("phantom", epilog=EXIT_CODES_HELP)(phantom.phantom)
    line.command("demo", epilog=EXIT_CODES_HELP)(demo.demo)
    return line


def main() -> None:
    """Entry point of the `lungnodule` script."""
    command_line()(prog_name="lungnodule")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lungnodule {version('lungnodule')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
