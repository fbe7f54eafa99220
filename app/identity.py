"""Who a caller is: roles, tenant, and the settings of the identity provider that vouches for people."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,47}$"
"""Of API keys and tenants: harmless in a log, a table and an address."""
DEFAULT_TENANT = "default"
"""Whose everything is that nobody else's is."""


class Role(StrEnum):
    """What a caller may do."""

    SUBMIT = "submit"
    """Send scans, cancel, retry and erase jobs of the own tenant."""
    READ = "read"
    """See jobs and results of the own tenant, models and limits."""
    OPERATE = "operate"
    """Everything, in every tenant."""


@dataclass(frozen=True)
class Identity:
    """A caller.

    Parameters
    ----------
    actor
        For the audit trail and the rate limits: ``key:<name>``, ``oidc:<subject>`` or ``anonymous``.
    name
        Without the kind; None where nobody was named.
    roles, tenant
        What it may do, and whose jobs it sees.
    """

    actor: str
    name: str | None
    roles: frozenset[Role]
    tenant: str = DEFAULT_TENANT

    def may(self, role: Role) -> bool:
        """Whether the role is held; `operate` holds all."""
        return role in self.roles or Role.OPERATE in self.roles

    @property
    def sees_tenant(self) -> str | None:
        """The tenant whose jobs are seen; None sees those of all."""
        return None if Role.OPERATE in self.roles else self.tenant


ANYBODY = Identity("anonymous", None, frozenset(Role))
"""Every caller of a service without access control."""

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Only asymmetric ones: a public key must never be taken for a shared secret."""


class OidcProvider(BaseModel):
    """Whose tokens are accepted, and what is read from them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str = Field(min_length=1, description="The claim iss, exactly.")
    audience: str = Field(min_length=1, description="What must be in the claim aud.")
    jwks_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/\S*)?$")] = Field(
        description="Where the provider shows its public keys."
    )
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    roles_claim: str = Field(default="roles", min_length=1, description="Claim with a list of names, or one name.")
    role_map: dict[str, tuple[Role, ...]] = Field(
        default={}, description="What a name in that claim stands for; without it, submit, read and operate."
    )
    tenant_claim: str = Field(default="", description="Claim with the tenant; without it all are of `default`.")
    leeway_s: int = Field(default=30, ge=0, le=300, description="How far clocks may differ.")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
