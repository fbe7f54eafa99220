"""`lungnodule phantom`: a chest CT with known nodules, for trying the service without a patient."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import errors_in_one_line


class PhantomFormat(StrEnum):
    """What can be written."""

    DICOM = "dicom"
    MHA = "mha"


def phantom(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", file_okay=False, help="Folder to write into.")],
    fmt: Annotated[
        PhantomFormat, typer.Option("--format", "-f", help="A DICOM series in one file a slice, or one .mha.")
    ] = PhantomFormat.DICOM,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same phantom.")] = 1,
) -> None:
    """Write a synthetic chest CT and truth.json with the nodules that are in it.

    For example:

    - `lungnodule phantom phantom/`

    - `lungnodule phantom phantom/ --format mha --seed 7`
    """
    with errors_in_one_line():
        from app.phantom import write_phantom

        write_phantom(out_dir, fmt.value, seed=seed)
        typer.echo(f"Wrote a {fmt.value} phantom (seed {seed}) and its truth.json to {out_dir}")
