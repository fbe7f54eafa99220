"""`lungnodule doctor`: can this machine do the work, and if not, why not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.exits import ExitCode, errors_in_one_line
from app.cli.setup import find_named_model, settings_with

if TYPE_CHECKING:
    from app.settings import Settings

Verdict = Literal["ok", "warning", "failed"]

NEEDED_MEMORY_BYTES = 2 << 30
"""An analysis peaks below this; tests/benchmarks measures it."""
DECODERS = {
    "uncompressed and deflated": "pydicom",
    "RLE": "pylibjpeg-rle",
    "JPEG lossless": "python-gdcm",
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg-openjpeg",
    "MetaImage, NIfTI, NRRD": "SimpleITK",
}
"""The package that reads each kind of file."""
_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    name: str
    verdict: Verdict
    detail: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or tensorrt.")] = None,
) -> None:
    """Check the installation: GPU, model hashes, decoders, disk, memory, limits.

    Exits with 1 when something would keep the service from working.

    For example:

    - `lungnodule doctor`

    - `LUNGNODULE_REQUIRE_GPU=1 lungnodule doctor --json`
    """
    with errors_in_one_line():
        checks = examine(settings_with(device=device))
        if as_json:
            import json

            typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
        else:
            for check in checks:
                typer.echo(f"{_MARKS[check.verdict]}  {check.name:<10}  {check.detail}")
        if any(check.verdict == "failed" for check in checks):
            raise typer.Exit(ExitCode.CHECK_FAILED)


def examine(settings: Settings) -> list[Check]:
    """Every check of this machine against these settings."""
    parts: tuple[Callable[[Settings], Iterator[Check]], ...] = (
        _versions, _device, _models, _decoders, _disk, _memory, _limits,
    )  # fmt: skip
    return [check for part in parts for check in part(settings)]


def _versions(_settings: Settings) -> Iterator[Check]:
    supported: Verdict = "ok" if sys.version_info >= (3, 11) else "failed"
    system = f"{platform.system()} {platform.machine()}"
    yield Check(
        "version", supported, f"lungnodule {version('lungnodule')}, Python {platform.python_version()}, {system}"
    )


def _device(settings: Settings) -> Iterator[Check]:
    from app.inference.network import available_providers, gpu_count

    gpus = gpu_count()
    wanted = settings.require_gpu or settings.device in {"cuda", "tensorrt"}
    verdict: Verdict = "ok" if gpus or not wanted else "failed" if settings.require_gpu else "warning"
    asked = f"{settings.device}, GPU required" if settings.require_gpu else settings.device
    providers = ", ".join(available_providers())
    yield Check("device", verdict, f"{gpus} GPUs, {os.cpu_count()} cores; asked for {asked}; built for {providers}")


def _models(settings: Settings) -> Iterator[Check]:
    from app.api.model_choice import store_source
    from app.imaging.errors import ModelError

    for name in settings.models:
        try:
            model = store_source(settings).load(find_named_model(settings, name))
        except ModelError as error:
            yield Check("model", "failed", f"{name}: {error.code}: {error.message}")
            continue
        verdict: Verdict = "warning" if model.notices else "ok"
        identity = f"{model.identity.name} {model.identity.version}, sha256 {model.identity.sha256[:12]}"
        precision = ", ".join(f"{network} {name}" for network, name in model.precision.items())
        remarks = ["hashes and preprocessing verified", f"runs on {model.execution_provider} ({precision})"]
        remarks += [notice.message for notice in model.notices]
        yield Check("model", verdict, f"{identity}: {'; '.join(remarks)}")


def _decoders(_settings: Settings) -> Iterator[Check]:
    missing = {kind: package for kind, package in DECODERS.items() if not _is_installed(package)}
    if missing:
        yield Check("decoders", "failed", "; ".join(f"{kind} needs {package}" for kind, package in missing.items()))
    else:
        yield Check("decoders", "ok", ", ".join(DECODERS))


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _disk(settings: Settings) -> Iterator[Check]:
    folder = settings.temp_dir or Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Check("disk", "failed", f"{folder} cannot be written: {error.strerror}")
        return
    verdict: Verdict = "ok"
    if free < settings.max_request_bytes:
        verdict = "warning"
    if free < settings.min_free_disk_bytes:
        verdict = "failed"
    least, largest = _gib(settings.min_free_disk_bytes), _gib(settings.max_request_bytes)
    yield Check("disk", verdict, f"{_gib(free)} free in {folder}; {least} needed, an upload may bring {largest}")


def _memory(_settings: Settings) -> Iterator[Check]:
    import psutil

    free = int(psutil.virtual_memory().available)
    verdict: Verdict = "ok" if free >= NEEDED_MEMORY_BYTES else "warning"
    yield Check("memory", verdict, f"{_gib(free)} available; an analysis needs up to {_gib(NEEDED_MEMORY_BYTES)}")


def _limits(settings: Settings) -> Iterator[Check]:
    own = ("max_request_bytes", "max_files", "max_waiting", "analysis_timeout_s", "upload_timeout_s")
    in_force = {name: getattr(settings, name) for name in own}
    in_force |= {f"read.{limit.name}": getattr(settings.read, limit.name) for limit in fields(settings.read)}
    shown = (_gib(value) if name.endswith("_bytes") else f"{value:,}" for name, value in in_force.items())
    yield Check("limits", "ok", "; ".join(f"{name} {value}" for name, value in zip(in_force, shown, strict=True)))


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
