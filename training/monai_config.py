"""Reads the configuration of a MONAI bundle without running it.

A bundle's JSON holds Python: values that begin with ``$`` are expressions that MONAI evaluates. None is evaluated here.
An expression is parsed (`ast`), and understood only if it is one call of a dotted name whose arguments are literals or
references (``@name``). What the name means is decided by whoever asks, against a list of its own; everything else is
refused with the expression in the message.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"@([A-Za-z_][\w#]*(?:::\w+)*)")
_PLACE = "_reference_to_"
_DEEPEST = 20


class BundleError(Exception):
    """A bundle that cannot be imported as it is; the message says what it holds and what would be understood."""


@dataclass(frozen=True)
class Call:
    """One call of a configuration: a name with its arguments, references resolved."""

    name: str
    """The last part of the dotted name, e.g. ``resnet50``."""
    positional: tuple[Any, ...]
    named: dict[str, Any]
    source: str

    def arguments(self, *order: str) -> dict[str, Any]:
        """All arguments by name; ``order`` names the positional ones.

        Raises
        ------
        BundleError
            For an argument that is not in ``order``: it would change the result and is not understood.
        """
        given = dict(zip(order, self.positional, strict=False)) | self.named
        unknown = given.keys() - set(order)
        if unknown or len(self.positional) > len(order):
            raise BundleError(f"{self.source}: arguments {sorted(unknown)} are not understood; known: {list(order)}")
        return given


@dataclass(frozen=True)
class Configuration:
    """`configs/inference.json` of a bundle."""

    entries: Mapping[str, Any]

    @classmethod
    def parsed(cls, text: bytes, name: str) -> Configuration:
        """From the file's content.

        Raises
        ------
        BundleError
            If it is no JSON object.
        """
        try:
            entries = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{name} is no JSON: {error}") from error
        if not isinstance(entries, dict):
            raise BundleError(f"{name} must hold an object")
        return cls(entries)

    def value(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """An entry with the references in it resolved, expressions left as they are.

        Raises
        ------
        BundleError
            If it, or what it refers to, is not there.
        """
        return self._resolved(f"@{name}", 0)

    def call(self, name: str) -> Call:
        """An entry that is a component (``_target_``) or an expression of one call.

        Raises
        ------
        BundleError
            If it is neither.
        """
        return self.as_call(self._raw(name), name)

    def as_call(self, entry: Any, name: str) -> Call:  # noqa: ANN401 - JSON
        """As `call`, for a part of the configuration."""
        for _ in range(_DEEPEST):
            if not (isinstance(entry, str) and entry.startswith("@")):
                break
            entry = self._raw(entry[1:])
        else:
            raise BundleError(f"{name}: the configuration's references go in a circle")
        if isinstance(entry, dict) and "_target_" in entry:
            target = str(entry["_target_"])
            named = {key: value for key, value in entry.items() if not key.startswith("_")}
            return Call(target.rpartition(".")[2], (), {k: self._argument(v, 0) for k, v in named.items()}, target)
        if isinstance(entry, str) and entry.startswith("$"):
            return self._expression(entry, name)
        raise BundleError(f"{name} must be a component or one call, found {str(entry)[:200]!r}")

    def method_calls(self, name: str, of: str) -> list[Call]:
        """A list of expressions ``$@of.method(...)``.

        Raises
        ------
        BundleError
            If one is anything else.
        """
        return [self._expression(str(entry), name, method_of=of) for entry in self.value(name)]

    def _raw(self, name: str) -> Any:  # noqa: ANN401
        entry: Any = self.entries
        for part in re.split(r"#|::", name):
            try:
                entry = entry[int(part)] if isinstance(entry, list) else entry[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise BundleError(f"the configuration has no entry {name!r}") from error
        return entry

    def _resolved(self, entry: Any, depth: int) -> Any:  # noqa: ANN401
        if depth > _DEEPEST:
            raise BundleError("the configuration's references go in a circle")
        if isinstance(entry, str) and (match := _REFERENCE.fullmatch(entry)):
            return self._resolved(self._raw(match[1]), depth + 1)
        if isinstance(entry, list):
            return [self._resolved(part, depth + 1) for part in entry]
        return entry

    def _argument(self, entry: Any, depth: int) -> Any:  # noqa: ANN401
        """Numbers and lists resolved; a reference to a component stays one."""
        if isinstance(entry, str) and (match := _REFERENCE.fullmatch(entry)):
            target = self._raw(match[1])
            is_component = isinstance(target, dict) or (isinstance(target, str) and target.startswith("$"))
            if depth > _DEEPEST:
                raise BundleError("the configuration's references go in a circle")
            return entry if is_component else self._argument(target, depth + 1)
        return self._resolved(entry, depth)

    def _expression(self, entry: str, name: str, method_of: str | None = None) -> Call:
        refused = BundleError(
            f"{name}: the expression {entry[:200]!r} is not run, and is not one call with literal arguments"
        )
        if not entry.startswith("$"):
            raise refused
        # "#" would begin a comment.
        source = _REFERENCE.sub(lambda match: _PLACE + match[1].replace("#", "__").replace("::", "__"), entry[1:])
        names = {match[1].replace("#", "__").replace("::", "__"): match[1] for match in _REFERENCE.finditer(entry)}
        try:
            node = ast.parse(source, mode="eval").body
        except SyntaxError as error:
            raise refused from error
        if not isinstance(node, ast.Call) or any(k.arg is None for k in node.keywords):
            raise refused
        path = _dotted(node.func)
        if path is None or (method_of is not None and path[0] != _PLACE + method_of):
            raise refused

        def argument(part: ast.expr) -> Any:  # noqa: ANN401
            if isinstance(part, ast.Name) and part.id.startswith(_PLACE):
                return self._argument(f"@{names[part.id.removeprefix(_PLACE)]}", 0)
            try:
                return ast.literal_eval(part)
            except ValueError as error:
                raise refused from error

        positional = tuple(argument(part) for part in node.args)
        return Call(path[-1], positional, {str(k.arg): argument(k.value) for k in node.keywords}, entry)


def _dotted(node: ast.expr) -> list[str] | None:
    """``a.b.c`` as its parts; None for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (parts := _dotted(node.value)) is not None:
        return [*parts, node.attr]
    return None
