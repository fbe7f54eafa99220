"""Which route a request is for, before the router is asked: so that it is judged before its body is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Mount, compile_path
from starlette.types import Scope


@dataclass(frozen=True)
class Place:
    """A route.

    Parameters
    ----------
    path
        Its template; None for what no route has.
    methods
        Of HTTP; empty for any.
    is_in_schema
        Whether the description of the API has it.
    """

    path: str | None
    methods: frozenset[str] = frozenset()
    is_in_schema: bool = False


NOWHERE = Place(None)


@dataclass(frozen=True)
class Places:
    """Every route of an app, in the order in which the router tries them."""

    patterns: Sequence[tuple[re.Pattern[str], Place]]

    def find(self, scope: Scope) -> tuple[Place, Mapping[str, str]]:
        """The route of a request, with the parameters of its path.

        As the router: the first that fits in path and method; else the first in path alone, whose answer is 405.
        """
        path, method = _below_root(scope), str(scope["method"])
        partly: tuple[Place, Mapping[str, str]] | None = None
        for pattern, place in self.patterns:
            found = pattern.match(path)
            if found is None:
                continue
            if not place.methods or method in place.methods:
                return place, found.groupdict()
            partly = partly or (place, found.groupdict())
        return partly or (NOWHERE, {})


def places_of(routes: Sequence[BaseRoute]) -> Places:
    """The routes of an app."""
    patterns = []
    for context in iter_route_contexts(routes):
        if context.path is None:
            continue
        is_mount = isinstance(context.original_route, Mount)
        template = f"{context.path.rstrip('/')}/{{path:path}}" if is_mount else context.path
        is_in_schema = bool(getattr(context.original_route, "include_in_schema", False)) and not is_mount
        patterns.append((compile_path(template)[0], Place(template, frozenset(context.methods or ()), is_in_schema)))
    return Places(patterns)


def _below_root(scope: Scope) -> str:
    """The path without the prefix of a proxy."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path
