"""`lungnodule keys`: who may call the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.exits import EXIT_CODES_HELP, errors_in_one_line
from app.cli.setup import quiet_libraries, settings_with

if TYPE_CHECKING:
    from app.jobs.api_keys import ApiKeys

Name = Annotated[str, typer.Argument(help="Of the program or person: a-z, 0-9, point, - and _.")]
Tenant = Annotated[str, typer.Option(help="Whose jobs it sees and makes.")]
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_ACTOR = "command-line"


def command_group() -> typer.Typer:
    """`keys create`, `list`, `rotate`, `revoke`."""
    group = typer.Typer(
        help="Make, list, rotate and revoke API keys, in the database of LUNGNODULE_DATA_DIR or "
        "LUNGNODULE_DATABASE_URL.",
        no_args_is_help=True,
    )
    group.command("create", epilog=EXIT_CODES_HELP)(create)
    group.command("list", epilog=EXIT_CODES_HELP)(list_)
    group.command("rotate", epilog=EXIT_CODES_HELP)(rotate)
    group.command("revoke", epilog=EXIT_CODES_HELP)(revoke)
    return group


def create(
    name: Name,
    roles: Annotated[str, typer.Option(help="Comma-separated: submit, read, operate (which may do everything).")],
    tenant: Tenant = "default",
    expires: Annotated[str | None, typer.Option(help="After which it ends: 90d, 12h, 30m; never without it.")] = None,
) -> None:
    """Make a key and print it on standard output; it cannot be shown again.

    For example:

    - `lungnodule keys create radiology --roles submit,read --tenant radiology --expires 90d`

    - `docker compose exec api lungnodule keys create first --roles operate`
    """
    with _keys() as keys:
        from app.identity import Role
        from app.imaging.errors import OptionError
        from app.jobs.rows import Who

        try:
            wanted = [Role(role.strip()) for role in roles.split(",") if role.strip()]
        except ValueError:
            raise OptionError("Roles are submit, read and operate, comma-separated.", code="roles_invalid") from None
        made = keys.create(name, wanted, tenant, None if expires is None else _seconds(expires), Who(_ACTOR))
        _shown(made, f"Key {name} of tenant {tenant}: {', '.join(wanted)}. It is not shown again.")


def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every key, without its secret.

    For example: `lungnodule keys list`
    """
    with _keys() as keys:
        import json

        rows: list[dict[str, Any]] = [
            {
                "name": key.name,
                "id": key.id,
                "state": state.value,
                "roles": sorted(role.value for role in key.roles),
                "tenant": key.tenant,
                "created_at": _when(key.created_at),
                "expires_at": _when(key.expires_at),
                "last_used_at": _when(key.last_used_at),
            }
            for key, state in keys.listed()
        ]
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        for row in rows:
            ends = f"ends {row['expires_at']}" if row["expires_at"] else "does not end"
            used = f"used {row['last_used_at']}" if row["last_used_at"] else "never used"
            typer.echo(f"{row['name']}  {row['state']}  {','.join(row['roles'])}  {row['tenant']}  {ends}  {used}")


def rotate(
    name: Name,
    overlap: Annotated[str, typer.Option(help="How long the old one goes on: 24h, 0m ends it at once.")] = "24h",
) -> None:
    """Make another key of the same name, roles, tenant and life, and print it; the old one ends after the overlap.

    For example: `lungnodule keys rotate radiology --overlap 2d`
    """
    with _keys() as keys:
        from app.jobs.rows import Who

        made = keys.rotate(name, _seconds(overlap), Who(_ACTOR))
        _shown(made, f"The new key {name}; the one before ends in {overlap}.")


def revoke(name: Name) -> None:
    """End every key of this name at once, with the browser sessions made with it.

    For example: `lungnodule keys revoke radiology`
    """
    with _keys() as keys:
        from app.jobs.rows import Who

        typer.echo(f"{keys.revoke(name, Who(_ACTOR))} revoked")


@contextmanager
def _keys() -> Iterator[ApiKeys]:
    from app.jobs.api_keys import ApiKeys
    from app.jobs.installation import opened_database

    with errors_in_one_line():
        quiet_libraries()
        with opened_database(settings_with()) as database:
            yield ApiKeys(database)


def _seconds(text: str) -> float:
    from app.imaging.errors import OptionError

    fits = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if fits is None:
        raise OptionError("Times are written as 30m, 12h or 90d.", code="duration_invalid")
    return int(fits[1]) * _UNITS_S[fits[2]]


def _when(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _shown(made: str, said: str) -> None:
    """The key alone on standard output, so that a script can take it."""
    typer.echo(said, err=True)
    typer.echo(made)
