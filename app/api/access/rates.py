"""How many requests a caller may make, and how many that find nothing; each process counts for itself."""

from __future__ import annotations

import ipaddress
import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.api.access.errors import RateLimited
from app.settings import Settings

REQUESTS_PER_MIN, MISSES_PER_MIN = 6000, 120
"""Where access is required and the settings say nothing: 100 a second, and two answers 401 or 404."""
_WINDOW_S = 60


@dataclass(frozen=True)
class Allowance:
    """What is left to a caller, for the headers of the answer."""

    limit: int
    left: int
    reset_s: int

    @property
    def headers(self) -> dict[str, str]:
        """As in draft-ietf-httpapi-ratelimit-headers."""
        return {
            "ratelimit-policy": f'"requests";q={self.limit};w={_WINDOW_S}',
            "ratelimit": f'"requests";r={self.left};t={self.reset_s}',
        }


class Rates:
    """Counts by caller, in windows that slide.

    Parameters
    ----------
    requests_per_min, misses_per_min
        Limits; 0 for none.
    """

    def __init__(self, requests_per_min: int, misses_per_min: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(requests_per_min) if requests_per_min else None
        self._misses = RateLimitItemPerMinute(misses_per_min) if misses_per_min else None

    def count(self, caller: str) -> Allowance | None:
        """Count a request; None where there is no limit.

        Raises
        ------
        RateLimited
            It is one too many.
        """
        if self._requests is None:
            return None
        if not self._limiter.hit(self._requests, "requests", caller):
            raise self._refusal(self._requests, "requests", caller)
        reset_at, left = self._limiter.get_window_stats(self._requests, "requests", caller)
        return Allowance(self._requests.amount, left, _seconds_until(reset_at))

    def note_miss(self, caller: str) -> None:
        """Count an answer 401 or 404."""
        if self._misses is not None:
            self._limiter.hit(self._misses, "misses", caller)

    def refuse_misses(self, caller: str) -> None:
        """Before something that may find nothing.

        Raises
        ------
        RateLimited
            Too much was not found.
        """
        if self._misses is not None and not self._limiter.test(self._misses, "misses", caller):
            raise self._refusal(self._misses, "misses", caller)

    def _refusal(self, item: RateLimitItemPerMinute, what: str, caller: str) -> RateLimited:
        reset_at, _ = self._limiter.get_window_stats(item, what, caller)
        said = "requests" if what == "requests" else "answers 401 or 404"
        return RateLimited(
            f"More than {item.amount} {said} a minute. Try again later, and more slowly.",
            code="rate_limited" if what == "requests" else "too_many_misses",
            values={"limit": item.amount, "window_s": _WINDOW_S, "retry_after_s": _seconds_until(reset_at)},
        )


def rates_of(settings: Settings) -> Rates:
    """As the settings say."""
    is_required = settings.access_required
    requests, misses = settings.requests_per_min, settings.misses_per_min
    return Rates(
        (REQUESTS_PER_MIN if is_required else 0) if requests is None else requests,
        (MISSES_PER_MIN if is_required else 0) if misses is None else misses,
    )


def address_of(client: tuple[str, int] | None) -> str:
    """A caller who has not said who it is: by address; of IPv6 by the network, since one machine has a whole one."""
    if client is None:
        return "address:unknown"
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return "address:unknown"
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return f"address:{ipaddress.ip_network((address, 64), strict=False).network_address}"
    return f"address:{address}"


def _seconds_until(at: float) -> int:
    return max(1, math.ceil(at - time.time()))
