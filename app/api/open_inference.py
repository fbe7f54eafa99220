"""The wire format of the Open Inference Protocol (KServe V2): JSON tensors and the binary tensor extension.

A body is JSON, or JSON of as many bytes as the header ``Inference-Header-Content-Length`` says, followed by the bytes
of the inputs in their order, little-endian, rows first. Only what is served is read: FP32 tensors, no shared memory, no
classification.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.errors import InvalidInference

HEADER_LENGTH = "inference-header-content-length"
MOST_JSON_BYTES = 32 << 20
"""Numbers as text take ten times their room while they are read; larger tensors are to come as bytes."""
DATATYPE = "FP32"

Array = NDArray[np.float32]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _InputParameters(_Strict):
    binary_data_size: Annotated[int, Field(ge=0, strict=True)] | None = None


class _OutputParameters(_Strict):
    binary_data: Annotated[bool, Field(strict=True)] | None = None


class _RequestParameters(_Strict):
    binary_data_output: Annotated[bool, Field(strict=True)] = False


class _Input(_Strict):
    name: Annotated[str, Field(max_length=256)]
    shape: Annotated[list[Annotated[int, Field(ge=0, strict=True)]], Field(max_length=8)]
    datatype: str
    parameters: _InputParameters = _InputParameters()
    data: list[Any] | None = None


class _Output(_Strict):
    name: Annotated[str, Field(max_length=256)]
    parameters: _OutputParameters = _OutputParameters()


class _Request(_Strict):
    id: Annotated[str, Field(max_length=256)] | None = None
    parameters: _RequestParameters = _RequestParameters()
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=16)]
    outputs: Annotated[list[_Output], Field(max_length=16)] = []


@dataclass(frozen=True)
class Inference:
    """What is asked of a network.

    Parameters
    ----------
    identifier
        The caller's own; given back.
    inputs
        By name.
    outputs
        Names asked for; none asks for all.
    binary
        By output name whether its bytes are wanted; ``binary_by_default`` for the others.
    """

    identifier: str | None
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    binary: Mapping[str, bool]
    binary_by_default: bool


def read_inference(body: bytes, header_length: str | None) -> Inference:
    """Read a request.

    Raises
    ------
    InvalidInference
        What does not fit, by the tensor's name; no value of a tensor is repeated.
    """
    text, blob = _split(body, header_length)
    if len(text) > MOST_JSON_BYTES:
        raise InvalidInference(
            f"{len(text)} bytes of JSON; more than {MOST_JSON_BYTES} are to be sent as binary tensors.",
            code="json_too_large",
            values={"bytes": len(text), "limit_bytes": MOST_JSON_BYTES},
        )
    try:
        asked = _Request.model_validate(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InvalidInference(f"Not an inference request: {_why(error)}.", code="malformed_request") from None
    names = [one.name for one in asked.inputs]
    if len(set(names)) < len(names):
        raise InvalidInference("An input is given twice.", code="malformed_request")
    tensors = dict(zip(names, _tensors(asked.inputs, blob), strict=True))
    if faulty := [name for name, values in tensors.items() if not np.isfinite(values).all()]:
        raise InvalidInference(f"Input {', '.join(faulty)} holds values that are no numbers.", code="wrong_data")
    return Inference(
        identifier=asked.id,
        inputs=tensors,
        outputs=tuple(output.name for output in asked.outputs),
        binary={o.name: o.parameters.binary_data for o in asked.outputs if o.parameters.binary_data is not None},
        binary_by_default=asked.parameters.binary_data_output,
    )


def written_answer(
    asked: Inference, model: str, version: str, outputs: Sequence[tuple[str, Array]]
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an answer."""
    described: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, values in outputs:
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPE, "shape": list(values.shape)}
        if asked.binary.get(name, asked.binary_by_default):
            blobs.append(values.astype("<f4").tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = values.ravel().tolist()
        described.append(entry)
    answer = {"model_name": model, "model_version": version, "outputs": described}
    text = json.dumps(answer | ({} if asked.identifier is None else {"id": asked.identifier})).encode()
    if not blobs:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join([text, *blobs]), headers


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if not header_length.isascii() or not header_length.isdigit() or len(header_length) > 12:
        raise InvalidInference("Inference-Header-Content-Length is no length.", code="malformed_request")
    length = int(header_length)
    if length > len(body):
        raise InvalidInference(
            f"Inference-Header-Content-Length is {length}, the body has {len(body)} bytes.", code="malformed_request"
        )
    return body[:length], memoryview(body)[length:]


def _tensors(inputs: Sequence[_Input], blob: memoryview) -> Iterator[Array]:
    at = 0
    for one in inputs:
        if one.datatype != DATATYPE:
            raise InvalidInference(f"Input {one.name} is to be {DATATYPE}.", code="wrong_datatype")
        size = one.parameters.binary_data_size
        if (size is None) == (one.data is None):
            raise InvalidInference(
                f"Input {one.name} has to have either `data` or `binary_data_size`.", code="malformed_request"
            )
        if size is None:
            yield _from_json(one)
            continue
        expected = 4 * math.prod(one.shape)
        if size != expected or at + size > len(blob):
            raise InvalidInference(
                f"Input {one.name} of shape {one.shape} takes {expected} bytes; binary_data_size is {size} and "
                f"{len(blob) - at} bytes are left.",
                code="wrong_size",
                values={"shape": one.shape, "expected_bytes": expected},
            )
        yield np.frombuffer(blob, "<f4", count=size // 4, offset=at).astype(np.float32).reshape(one.shape)
        at += size
    if at != len(blob):
        raise InvalidInference(f"{len(blob) - at} bytes belong to no input.", code="wrong_size")


def _from_json(one: _Input) -> Array:
    """Nested as the shape says, or flat; both are allowed."""
    try:
        read = np.asarray(one.data)
    except ValueError:  # rows of different lengths
        read = np.empty(0, object)
    if read.dtype.kind not in "iuf" and one.data:
        raise InvalidInference(f"Input {one.name} holds something else than numbers in rows.", code="wrong_data")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        values = read.astype(np.float32).ravel()
    if values.size != math.prod(one.shape):
        raise InvalidInference(
            f"Input {one.name} of shape {one.shape} takes {math.prod(one.shape)} numbers, {values.size} were sent.",
            code="wrong_size",
            values={"shape": one.shape},
        )
    return values.reshape(one.shape)


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"
    return "it is no valid JSON"
