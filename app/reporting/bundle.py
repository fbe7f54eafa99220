"""What is kept of an analysis: the public document, and the findings whole, so that any form can be made later.

A zip of two JSON files. Findings hold more than the document does (outlines, full precision); they are written field by
field from the types of the dataclasses, so a field that is added is kept without a word here, and one that an older
version did not know takes its default. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import struct
import types
import typing
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np

from app.imaging.volume import Grid
from app.inference.findings import Findings
from app.reporting.assessment import Assessment
from app.reporting.compared import ComparedFindings
from app.reporting.errors import ResultUnavailable
from app.reporting.material import Report

VERSION = 1
"""Raised when what was written before can no longer be read by this program."""

_DOCUMENT = "result.json"
_FINDINGS = "findings.json"
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError,
    LookupError, ValueError, TypeError, AttributeError, ArithmeticError,
)  # fmt: skip
"""What bytes that are no bundle make of `zipfile`, `json` and of the types of the fields."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""A zip must name a time; this one says nothing."""


@dataclass(frozen=True)
class Bundle:
    """A stored answer."""

    document: bytes
    """The JSON that clients get, byte for byte."""
    findings: Findings
    made_at: datetime
    """When the analysis ended (UTC): the time that every object made of it carries."""

    @property
    def report(self) -> Report:
        """What every form is made of."""
        return Report(self.findings, self.made_at, assessment_in(self.document))


def assessment_in(document: bytes | str) -> Assessment | None:
    """Risk and guidelines as a document tells them; None in one that was stored before there were any."""
    told = json.loads(document).get("assessment")
    return None if told is None else Assessment.model_validate(told)


def pack(bundle: Bundle) -> bytes:
    """The bytes that are stored: the same for the same bundle."""
    kept = {"version": VERSION, "made_at": bundle.made_at.isoformat(), "findings": encoded(bundle.findings)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in ((_DOCUMENT, bundle.document), (_FINDINGS, json.dumps(kept).encode())):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), body, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def document_of(stored: bytes) -> bytes:
    """The public JSON of a stored answer; also of one that was stored before there were bundles."""
    if not zipfile.is_zipfile(io.BytesIO(stored)):
        return stored
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        return archive.read(_DOCUMENT)


def unpack(stored: bytes) -> Bundle:
    """A stored answer as it was.

    Raises
    ------
    ResultUnavailable
        ``no_outlines``: stored by a version that kept less, or by a later one that this program cannot read;
        ``stored_answer_damaged``.
    """
    if not zipfile.is_zipfile(io.BytesIO(stored)):
        raise _another_version(0)
    try:
        with zipfile.ZipFile(io.BytesIO(stored)) as archive:
            kept = json.loads(archive.read(_FINDINGS))
            if kept["version"] != VERSION:
                raise _another_version(kept["version"])
            made_at = datetime.fromisoformat(kept["made_at"])
            # Only what was compared has the field.
            wanted = ComparedFindings if "comparison" in kept["findings"] else Findings
            return Bundle(archive.read(_DOCUMENT), decoded(wanted, kept["findings"]), made_at)
    except _DAMAGES as damage:
        raise ResultUnavailable(
            "The stored answer is damaged. POST to the job's link `retry` to have the scan analysed again.",
            code="stored_answer_damaged",
        ) from damage


def _another_version(found: int) -> ResultUnavailable:
    return ResultUnavailable(
        "The answer was stored by another version of the program, without what this form is made of. "
        "POST to the job's link `retry` to have it analysed again.",
        code="no_outlines",
        values={"stored_version": found, "version": VERSION},
    )


def encoded(value: Any) -> Any:  # noqa: ANN401 - any field of a dataclass
    """A dataclass, and what it holds, as JSON values."""
    if isinstance(value, np.ndarray):
        flat = np.packbits(value) if value.dtype == np.bool_ else value
        return {
            "shape": list(value.shape),
            "dtype": value.dtype.str,
            "bytes": base64.b64encode(flat.tobytes()).decode(),
        }
    if isinstance(value, Grid):
        return {"shape_zyx": list(value.shape_zyx), "affine": value.affine.tolist()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encoded(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: encoded(each) for key, each in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [encoded(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def decoded(wanted: Any, value: Any) -> Any:  # noqa: ANN401 - the type decides
    """The reverse of `encoded` for a value of the type ``wanted``."""
    if value is None or wanted is Any:
        return value
    if wanted is Grid:
        return Grid(tuple(value["shape_zyx"]), np.array(value["affine"]))
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        hints = _hints(wanted)
        return wanted(**{name: decoded(hints[name], each) for name, each in value.items() if name in hints})
    origin, kinds = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        value = decoded(next(kind for kind in kinds if kind is not type(None)), value)
    elif origin is tuple:
        each_kind = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        value = tuple(decoded(kind, each) for kind, each in zip(each_kind, value, strict=True))
    elif origin is np.ndarray:
        value = _array(value)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        value = {key: decoded(kinds[1], each) for key, each in value.items()}
    return value


@cache
def _hints(wanted: type) -> dict[str, Any]:
    return typing.get_type_hints(wanted)


def _array(value: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    shape, dtype = tuple(value["shape"]), np.dtype(value["dtype"])
    body = np.frombuffer(base64.b64decode(value["bytes"]), np.uint8)
    if dtype == np.bool_:
        return np.unpackbits(body, count=int(np.prod(shape))).astype(np.bool_).reshape(shape)
    return np.array(body.view(dtype).reshape(shape))
