"""One TOML file says which PACS there are, which series are analysed, and which results go where.

An unknown key is refused, and an error names the key. Secrets are not in the file: it names an environment variable or
a file that holds one.
"""

from __future__ import annotations

import os
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from app.imaging.deidentification import Retained
from app.pacs.errors import PacsConfigInvalid
from app.pacs.patterns import checked_pattern

MIB = 1 << 20
Name = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
AeTitle = Annotated[str, Field(pattern=r"^[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?$")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
"""Without user, query or fragment."""
Kind = Literal["sr", "seg", "gsps", "ko", "sc", "pdf"]
"""Objects that can be sent; as in ``GET /v1/jobs/{id}/results/{kind}``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Login(_Strict):
    """Who we are to a web server: a user with a password, or a bearer token; the secret is held elsewhere."""

    user: str | None = None
    """With it HTTP Basic; without, the secret is a bearer token."""
    secret_env: str | None = None
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.secret_env is None) == (self.secret_file is None):
            raise ValueError("give secret_env or secret_file, one of them")
        return self

    def secret(self) -> SecretStr:
        """Read it now, so that a changed one is used without a restart.

        Raises
        ------
        PacsConfigInvalid
            It is not there.
        """
        try:
            held = self.secret_file.read_text("utf-8") if self.secret_file else os.environ[self.secret_env or ""]
        except (OSError, UnicodeDecodeError, KeyError):
            where = "the file of secret_file" if self.secret_file else f"the environment variable {self.secret_env}"
            raise PacsConfigInvalid(
                f"A login's secret cannot be read: {where} is missing.", code="pacs_secret"
            ) from None
        return SecretStr(held.strip())


class WebTarget(_Strict):
    """A PACS with DICOMweb."""

    kind: Literal["dicomweb"]
    url: Url
    """Of the services, e.g. ``https://pacs.example/dicom-web``."""
    login: Login | None = None
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    allow_private: bool = True
    """Whether the address may be of this machine or a private network, as that of a PACS in a hospital is."""
    max_answer_bytes: int = Field(default=16 * MIB, ge=1024)


class DimseTarget(_Strict):
    """A PACS with DIMSE."""

    kind: Literal["dimse"]
    ae_title: AeTitle
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    calling_ae_title: AeTitle = "LUNGNODULE"
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    allow_private: bool = True


class Return(_Strict):
    """Which results go where."""

    target: Name
    kinds: tuple[Kind, ...] = Field(min_length=1)


class Deidentification(_Strict):
    """PS3.15 basic profile, before anything is kept; results go back to the original study."""

    retain: tuple[Literal["modified_dates", "patient_characteristics"], ...] = ()
    """Options of the profile."""

    @property
    def retained(self) -> Retained:
        """As the rewriting takes it."""
        return Retained(**dict.fromkeys(self.retain, True))


class Rule(_Strict):
    """Which series are analysed: all of what is stated must hold; what the header does not say does not fit."""

    name: Name
    modality: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")], ...] = ("CT",)
    body_part: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")], ...] = ()
    """Empty: any, and none."""
    description: tuple[str, ...] = ()
    """Regular expressions, one of which must be found in SeriesDescription, in any case; empty: any."""
    not_description: tuple[str, ...] = ()
    """None of which may be found."""
    max_slice_thickness_mm: float | None = Field(default=None, gt=0)
    min_instances: int = Field(default=20, ge=1)
    model: str | None = None
    operating_point: str | None = None
    deidentify: Deidentification | None = None
    send: tuple[Return, ...] = ()

    @field_validator("description", "not_description")
    @classmethod
    def _safe_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            checked_pattern(pattern)
        return patterns


class Receiving(_Strict):
    """How received instances become a series."""

    complete_after_s: float = Field(default=30.0, gt=0, le=86_400)
    """Without a further instance, a series counts as complete."""
    keep_s: float = Field(default=600.0, ge=0)
    """So long after its job was made a series is kept, to be analysed anew with instances that come late."""
    max_instance_bytes: int = Field(default=512 * MIB, ge=1024)


class Listener(_Strict):
    """The C-STORE and C-ECHO provider; without this table there is none."""

    ae_title: AeTitle = "LUNGNODULE"
    host: str = "127.0.0.1"
    port: int = Field(default=11112, ge=0, le=65535)
    calling_ae_titles: tuple[AeTitle, ...] = Field(min_length=1)
    calling_addresses: tuple[str, ...] = Field(default=("127.0.0.0/8", "::1/128"), min_length=1)
    """Networks, e.g. ``10.1.0.0/16``."""
    max_pdu_bytes: int = Field(default=65_536, ge=4096, le=1 << 20)
    max_associations: int = Field(default=8, ge=1, le=100)
    idle_timeout_s: float = Field(default=60.0, gt=0)

    @field_validator("calling_addresses")
    @classmethod
    def _networks(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ip_network(address)
        return addresses

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Where associations may come from."""
        return tuple(ip_network(address) for address in self.calling_addresses)


class Poller(_Strict):
    """An Orthanc whose log of changes is followed."""

    url: Url
    """Of its REST API, e.g. ``http://orthanc:8042``."""
    login: Login | None = None
    every_s: float = Field(default=5.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    allow_private: bool = True
    begin: Literal["now", "oldest"] = "now"
    """Where to begin when it is followed for the first time: with what comes, or with all that is there."""
    max_instances: int = Field(default=5000, ge=1)


class Worklist(_Strict):
    """A UPS-RS worklist (PS3.18 11) whose scheduled workitems this service performs."""

    url: Url
    """Of the services, e.g. ``https://pacs.example/dicom-web``; ``/workitems`` follows."""
    login: Login | None = None
    every_s: float = Field(default=30.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    allow_private: bool = True
    events_url: Annotated[str, Field(pattern=r"^wss?://[^\s/?#@]+(/[^\s?#]*)?$")] | None = None
    """Of the server's event channel, e.g. ``wss://pacs.example/dicom-web/subscribers/LUNGNODULE``: requests to cancel
    come over it; None: they are not heard."""
    subscriber: AeTitle = "LUNGNODULE"
    """AE title that is subscribed to each workitem of ours."""
    station: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,16}$")
    """Code value of the Scheduled Station Name that is ours; None: any."""
    workitem_code: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,16}$")
    """Code value of the Scheduled Workitem; None: any."""
    input: Name
    """Target of kind dicomweb that input is fetched from; addresses in a workitem are not followed."""
    output: Name
    """Target of kind dicomweb that results are stored at."""
    kinds: tuple[Kind, ...] = Field(default=("sr", "seg"), min_length=1)
    model: str | None = None
    operating_point: str | None = None
    deidentify: Deidentification | None = None
    max_series_bytes: int = Field(default=4096 * MIB, ge=1024)

    @property
    def as_rule(self) -> Rule:
        """What is asked of a series."""
        return Rule(name="worklist", model=self.model, operating_point=self.operating_point)


class PacsConfig(_Strict):
    """The whole file."""

    targets: dict[Name, Annotated[WebTarget | DimseTarget, Field(discriminator="kind")]] = {}
    rules: tuple[Rule, ...] = ()
    receive: Receiving = Receiving()
    dimse: Listener | None = None
    orthanc: dict[Name, Poller] = {}
    worklist: dict[Name, Worklist] = {}

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len({rule.name for rule in self.rules}) != len(self.rules):
            raise ValueError("two rules have the same name")
        for rule in self.rules:
            wanted = [each.target for each in rule.send]
            if len(set(wanted)) != len(wanted):
                raise ValueError(f"rule {rule.name} names a target twice in send")
            if unknown := sorted(set(wanted) - set(self.targets)):
                raise ValueError(f"rule {rule.name} sends to {', '.join(unknown)}, which is not among the targets")
        for name, worklist in self.worklist.items():
            for use in (worklist.input, worklist.output):
                target = self.targets.get(use)
                if target is None or target.kind != "dicomweb":
                    raise ValueError(f"worklist {name} names {use}, which is no target of kind dicomweb")
        return self

    def rule(self, name: str | None) -> Rule | None:
        """By name; None where the file no longer has it."""
        return next((rule for rule in self.rules if rule.name == name), None)


def read_pacs_config(path: Path) -> PacsConfig:
    """Read and check the file.

    Raises
    ------
    PacsConfigInvalid
        Names the line, or each key that does not fit and why.
    """
    try:
        return PacsConfig.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise PacsConfigInvalid(f"The file of LUNGNODULE_PACS_CONFIG cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PacsConfigInvalid(f"The file of LUNGNODULE_PACS_CONFIG is not TOML: {error}.") from None
    except ValidationError as error:
        # Not the values: somebody may have written a password into the wrong key.
        faults = [f"{_key(fault['loc'])}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise PacsConfigInvalid(
            f"The file of LUNGNODULE_PACS_CONFIG does not fit: {'; '.join(faults)}.", values={"faults": faults}
        ) from None


def _key(place: tuple[int | str, ...]) -> str:
    """``rules[0].modality``, as one would look for it in the file."""
    # pydantic puts the kind of a target between its name and its key.
    parts = [part for number, part in enumerate(place) if not (place[0] == "targets" and number == 2)]
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return written.removeprefix(".") or "the file"
