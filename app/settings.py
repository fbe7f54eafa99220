"""Settings of the service: environment variables LUNGNODULE_*, checked at start-up; an unknown one is refused."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.identity import DEFAULT_TENANT, NAME_PATTERN, OidcProvider, is_loopback
from app.imaging.read_options import ReadLimits
from app.inference.signature import parse_public_key

PREFIX = "LUNGNODULE_"
CLIENT_VARIABLES = ("LUNGNODULE_API_KEY",)
"""Read by our own clients, not by the service."""

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
    allow_private: bool = False
    """Whether the address may be one of this machine or of a private network."""


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

    access: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether callers must say who they are; auto asks for it unless host is a loopback address.",
    )
    open_metrics: bool = Field(default=False, description="Answer /metrics without a key, too.")
    open_pages: bool = Field(default=True, description="Answer pages without data (/docs, /problems) without a key.")
    oidc: OidcProvider | None = Field(default=None, description="JSON: the identity provider whose tokens are taken.")
    https_only: bool = Field(default=False, description="Callers come by https only: HSTS, and cookies for it alone.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Names by which callers may reach the service (header Host); empty: any."
    )
    requests_per_min: int | None = Field(
        default=None, ge=0, description="Requests of one caller; 0: any. Unset: 6000, any while access is off."
    )
    misses_per_min: int | None = Field(
        default=None,
        ge=0,
        description="Answers 401 and 404 to one caller; 0: any. Unset: 120, any while access is off.",
    )
    pacs_tenant: str = Field(
        default=DEFAULT_TENANT,
        pattern=NAME_PATTERN,
        description="Tenant of the jobs that come from a PACS, but for STOW-RS with a key or token of another tenant.",
    )

    model_store: Path = Field(default=Path("model_store"), description="Folder of <name>/<version>/manifest.json.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("lungnodule",),
        min_length=1,
        description="Models to load at the start, comma-separated, as name (newest version) or name:version; the first "
        "is the default until one is activated.",
    )
    model_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Public keys of minisign, comma-separated: with any, only models whose manifest one of them signed "
        "are loaded.",
    )
    shadow_model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(:[0-9A-Za-z.+-]+)?$")] | None = Field(
        default=None,
        description="name or name:version of a model that analyses each scan again after its answer; only counted.",
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
    deidentify: Literal["off", "basic"] = Field(
        default="off",
        description="basic: what is sent to /v1/jobs is de-identified (PS3.15 basic profile) before it is stored.",
    )
    deidentify_retain: Annotated[tuple[Literal["modified_dates", "patient_characteristics"], ...], NoDecode] = Field(
        default=(), description="What is kept nevertheless, comma-separated: modified_dates, patient_characteristics."
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
    max_inference_bytes: int = Field(
        default=256 * MIB, ge=1, description="Largest request body of the networks' own endpoints (/v2), in bytes."
    )
    upload_timeout_s: float = Field(default=300.0, gt=0, description="Longest wait for a request body, in seconds.")
    upload_grace_s: float = Field(default=10.0, gt=0, description="Seconds before the least rate counts.")
    min_upload_bytes_per_s: float = Field(
        default=64 * 1024, gt=0, description="Least average rate of a request body after the grace, in bytes/s."
    )

    max_document_bytes: int = Field(default=MIB, ge=1024, description="Largest JSON body, in bytes.")
    document_timeout_s: float = Field(default=30.0, gt=0, description="Longest wait for a JSON body, in seconds.")
    header_timeout_s: float = Field(default=15.0, gt=0, description="Longest wait for a request's header, in seconds.")
    max_header_bytes: int = Field(default=32 * 1024, ge=1024, description="Largest request header, in bytes.")
    max_headers: int = Field(default=100, ge=10, description="Most header fields of one request.")
    keep_alive_s: int = Field(default=15, ge=1, description="Seconds after which an idle connection is closed.")
    send_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds after which a client that takes nothing of its answer in is let go."
    )
    max_connections: int = Field(default=1000, ge=1, description="Most connections at the same time.")
    max_connections_per_address: int = Field(
        default=0, ge=0, description="Most connections of one address; 0: no limit, as behind a proxy."
    )

    read: ReadLimits = Field(
        default_factory=ReadLimits, description="Limits of the reader, e.g. LUNGNODULE_READ__MAX_SLICES."
    )

    @property
    def access_required(self) -> bool:
        """Whether callers must say who they are."""
        return self.access == "required" or (self.access == "auto" and not is_loopback(self.host))

    @field_validator("models", "model_keys", "deidentify_retain", "trusted_proxies", "allowed_hosts", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("model_keys")
    @classmethod
    def _keys_of_minisign(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for key in value:
            parse_public_key(key)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ip_network(proxy)
        return proxies

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
    names += [f"{PREFIX}OIDC__{name.upper()}" for name in OidcProvider.model_fields]
    return names + [f"{PREFIX}READ__{limit.name.upper()}" for limit in fields(ReadLimits)]


def refuse_unknown_settings(environment: Mapping[str, str]) -> None:
    """A typing error in a name must not silently leave the default in force.

    Raises
    ------
    UnknownSetting
        Naming each unknown variable and the closest known one.
    """
    known = [*setting_names(), *CLIENT_VARIABLES]
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    if unknown:
        raise UnknownSetting("; ".join(_hint(name, known) for name in sorted(unknown)))


def _hint(name: str, known: list[str]) -> str:
    closest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)[0]
    return f"unknown setting {name}; the closest known one is {closest}"
