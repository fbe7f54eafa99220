"""Why a caller is sent away; `app.api.problem_kinds` says how each is answered."""

from __future__ import annotations

from app.imaging.errors import LungNoduleError


class NotAuthenticated(LungNoduleError):
    """Nobody said who calls, or what was said is not valid: unknown, expired, revoked, forged are not told apart."""

    default_code = "credentials_missing"


class RoleMissing(LungNoduleError):
    """The caller is known and may not do this."""

    default_code = "role_missing"


class ForgeryRefused(LungNoduleError):
    """A browser may have been led here by another site."""

    default_code = "cross_site"


class KeyInAddress(LungNoduleError):
    """A secret in a URL ends in logs and histories."""

    default_code = "key_in_url"


class RateLimited(LungNoduleError):
    """More requests, or more misses, than a caller may."""

    default_code = "rate_limited"


class ProviderUnavailable(LungNoduleError):
    """The identity provider does not show its keys."""

    default_code = "identity_provider_unavailable"


class AccessOff(LungNoduleError):
    """There is nothing to sign in to."""

    default_code = "access_off"
