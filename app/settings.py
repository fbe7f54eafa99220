"""Settings of the service: environment variables LUNGNODULE_*, checked at start-up; an unknown one is refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.imaging.read_options import ReadLimits

PREFIX = "LUNGNODULE_"

MIB = 1 << 20
GIB = 1 << 30


class UnknownSetting(ValueError):
    """An environment variable with our prefix that names no setting."""


class WebhookTarget(BaseModel):
    """Where the end of a job is told to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$")]
    secret: Annotated[SecretStr, Field(min_length=16)]
    """Key of the signature."""


class Settings(BaseSettings):
    """Everything that may differ between two installations. Preprocessing is not among it: that is the model's."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    root_path: str = Field(default="", description="Path prefix that a reverse proxy strips, e.g. /lungnodule.")
    docs: bool = Field(default=True, description="Serve /docs, /redoc and /openapi.json.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    model_store: Path = Field(default=Path("model_store"), description="Folder of <name>/<version>/manifest.json.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("lungnodule",),
        min_length=1,
        description="Models to load at the start, comma-separated, as name (newest version) or name:version; the first "
        "is the default until one is activated.",
    )
    max_loaded_models: int = Field(
        default=2, ge=1, description="Models kept in memory; more only while more are in use at once."
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto", description="Where networks run; auto takes CUDA when a GPU is there."
    )
    precision: str = Field(
        default="fp32",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="fp32, a variant that the model's manifest names, or auto: the fastest that was measured and can "
        "run here.",
    )
    require_gpu: bool = Field(default=False, description="Refuse to start without a GPU instead of using the CPU.")
    tensorrt_cache: Path | None = Field(default=None, description="Folder where TensorRT keeps built engines.")
    detector_memory_mib: float | None = Field(
        default=None,
        ge=1,
        description="Memory of one detector pass, in MiB; larger lungs are analysed in tiles, with the same result.",
    )
    threads: int = Field(default=0, ge=0, description="Threads for one analysis; 0 takes one for each core.")

    max_waiting: int = Field(default=8, ge=0, description="Requests admitted beside the one being analysed.")
    analysis_timeout_s: float = Field(default=600.0, gt=0, description="Longest analysis, in seconds.")
    temp_dir: Path | None = Field(default=None, description="Where uploads lie while they are analysed.")
    min_free_disk_bytes: int = Field(
        default=GIB, ge=0, description="Free bytes under temp_dir below which the service is not ready."
    )

    data_dir: Path = Field(default=Path("lungnodule_data"), description="Where jobs, their scans and results are kept.")
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://... for many machines; without it SQLite in data_dir."
    )
    store_url: str | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?$",
        description="s3://bucket/prefix for scans and results; without it they lie in data_dir.",
    )
    worker_concurrency: int = Field(
        default=1, ge=0, le=64, description="Jobs analysed at once by each worker; 0: this service only takes jobs in."
    )
    worker_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of a worker's own probes and metrics; none without it."
    )
    worker_lease_s: float = Field(
        default=30.0, gt=0, description="Seconds without a heartbeat after which a worker counts as dead."
    )
    max_attempts: int = Field(default=3, ge=1, description="Attempts that may fail or be lost before a job is parked.")
    max_queued: int = Field(default=1000, ge=1, description="Jobs that may wait.")
    max_batch_jobs: int = Field(default=64, ge=1, description="Most jobs of one batch.")
    max_job_uploads: int = Field(default=16, ge=1, description="Uploads of jobs received at the same time.")
    drain_notice_s: float = Field(
        default=1.0, ge=0, description="Seconds between not being ready and not listening, after SIGTERM."
    )
    drain_timeout_s: float = Field(
        default=20.0, ge=0, description="Seconds that running jobs get after SIGTERM before they are handed back."
    )
    opened_scans_bytes: int = Field(
        default=4 * GIB, ge=0, description="Bytes of scans kept open under temp_dir for readers; the newest always is."
    )
    opened_scans_idle_s: float = Field(
        default=600.0, gt=0, description="Seconds after the last look at which an opened scan is closed."
    )
    retention_days: float = Field(default=30.0, gt=0, description="Days after its end at which a job is erased.")
    retention_bytes: int = Field(
        default=100 * GIB, ge=0, description="Bytes of stored scans above which the oldest jobs are erased."
    )
    webhooks: dict[Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")], WebhookTarget] = Field(
        default={}, description="JSON: name to url and secret; the only addresses that are told of a job's end."
    )
    pacs_config: Path | None = Field(
        default=None, description="TOML file that names PACS, which series are analysed and which results go where."
    )
    actor_header: str = Field(
        default="", description="Header in which the proxy names the authenticated user, for the audit trail."
    )

    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        description="Base URL of an OpenTelemetry collector (OTLP over HTTP); none without it.",
    )

    max_request_bytes: int = Field(default=2 * GIB, ge=1, description="Largest request body, in bytes.")
    max_files: int = Field(default=5000, ge=1, description="Most files in one request.")
    upload_timeout_s: float = Field(default=300.0, gt=0, description="Longest wait for a request body, in seconds.")
    upload_grace_s: float = Field(default=10.0, gt=0, description="Seconds before the least rate counts.")
    min_upload_bytes_per_s: float = Field(
        default=64 * 1024, gt=0, description="Least average rate of a request body after the grace, in bytes/s."
    )

    read: ReadLimits = Field(
        default_factory=ReadLimits, description="Limits of the reader, e.g. LUNGNODULE_READ__MAX_SLICES."
    )

    @field_validator("models", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith("postgresql://"):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("store_url")
    @classmethod
    def _with_its_extra(cls, value: str | None) -> str | None:
        if value is not None and find_spec("s3fs") is None:
            raise ValueError("needs the package s3fs: pip install 'lungnodule[s3]'")
        return value

    @field_validator("root_path")
    @classmethod
    def _one_leading_slash(cls, value: str) -> str:
        trimmed = value.strip("/")
        return f"/{trimmed}" if trimmed else ""


def settings_from_environment() -> Settings:
    """Read LUNGNODULE_* from the environment.

    Raises
    ------
    UnknownSetting
        For a variable with the prefix that names no setting; says which and the closest known one.
    pydantic.ValidationError
        For a value that does not fit.
    """
    refuse_unknown_settings(os.environ)
    return Settings()


def setting_names() -> list[str]:
    """Every environment variable that is read."""
    names = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    return names + [f"{PREFIX}READ__{limit.name.upper()}" for limit in fields(ReadLimits)]


def refuse_unknown_settings(environment: Mapping[str, str]) -> None:
    """A typing error in a name must not silently leave the default in force.

    Raises
    ------
    UnknownSetting
        Naming each unknown variable and the closest known one.
    """
    known = setting_names()
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    if unknown:
        raise UnknownSetting("; ".join(_hint(name, known) for name in sorted(unknown)))


def _hint(name: str, known: list[str]) -> str:
    closest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)[0]
    return f"unknown setting {name}; the closest known one is {closest}"
