"""What several commands need before they can start: settings from the environment, and a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from app.cli.exits import ExitCode, fail

if TYPE_CHECKING:
    from app.inference.model_store import ModelFolder
    from app.settings import Settings


def settings_with(**chosen: Any) -> Settings:  # noqa: ANN401 - the type is the setting's
    """Settings from LUNGNODULE_*, overridden by the options that were given (not None).

    Raises
    ------
    pydantic.ValidationError
        For a value that does not fit.
    typer.Exit
        With the code for wrong usage when the environment names an unknown setting.
    """
    from app.settings import Settings, UnknownSetting, refuse_unknown_settings

    try:
        refuse_unknown_settings(os.environ)
    except UnknownSetting as error:
        fail(ExitCode.USAGE, "setting_unknown", str(error))
    return Settings(**{name: value for name, value in chosen.items() if value is not None})


def one_process_per_port() -> None:
    """Ignore PROMETHEUS_MULTIPROC_DIR; to be called before anything imports prometheus_client.

    Each process has a port and figures of its own, so there is nothing to add up through files. With the variable,
    every figure would be written into that folder too, and one that is not there would end the start.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def find_named_model(settings: Settings, wanted: str) -> ModelFolder:
    """The folder of ``name`` or ``name:version`` in the model store.

    Raises
    ------
    ModelError
        When the store holds no such model.
    """
    from app.inference.model_store import find_model

    name, _, version = wanted.partition(":")
    return find_model(settings.model_store, name, version or None)


def quiet_libraries() -> None:
    """Keep libraries from writing parts of the file, that is of the patient, to the terminal."""
    import sys

    from app.logs import configure_logs

    configure_logs("error", sys.stderr)
