"""Exit codes, and how an error becomes one line on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import typer

from app.imaging.errors import LungNoduleError, ModelError, OptionError, ScanError


class ExitCode(IntEnum):
    """Part of the public interface: scripts branch on them."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    SCAN = 3
    MODEL = 4
    SYSTEM = 5


EXIT_CODES_HELP = (
    "Exit codes: 0 done (with or without nodules), 1 a check or the demonstration failed, 2 wrong usage or setting, "
    "3 the scan cannot be used, 4 the model cannot be used, 5 file, disk, memory or network trouble, 130 interrupted. "
    "An error is one line on standard error: `error[code]: message`."
)


def fail(exit_code: ExitCode, code: str, message: str) -> NoReturn:
    """Print ``error[code]: message`` on one line of standard error and exit."""
    typer.echo(f"error[{code}]: {' '.join(message.split())}", err=True)
    raise typer.Exit(exit_code)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn the errors that a caller can act on into one line and an exit code; anything else is a bug and shows."""
    from pydantic import ValidationError

    from app.pacs.errors import ListenerUnavailable

    try:
        yield
    except ScanError as error:
        fail(ExitCode.SCAN, error.code, error.message)
    except ModelError as error:
        fail(ExitCode.MODEL, error.code, error.message)
    except OptionError as error:
        fail(ExitCode.USAGE, error.code, error.message)
    except ListenerUnavailable as error:
        fail(ExitCode.SYSTEM, error.code, error.message)
    except LungNoduleError as error:
        fail(ExitCode.CHECK_FAILED, error.code, error.message)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        fail(ExitCode.USAGE, "setting_invalid", faults)
    except MemoryError:
        fail(ExitCode.SYSTEM, "out_of_memory", "Not enough memory; `lungnodule doctor` says how much there is.")
    except OSError as error:
        fail(
            ExitCode.SYSTEM, "system", f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
        )
