"""Program of the child process that decodes compressed pixels, under limits of memory and rights.

Started by `app.imaging.child_process` as a script. It reads one JSON request per line and answers each with the
length of a JSON object (4 bytes, little endian), the object, and as many bytes of raw little endian pixels as it says.
A fault that is not foreseen ends the process: its parent takes that for damaged data. It imports nothing of `app`,
so that a child costs no more than its decoders.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO


def main() -> None:
    """Answer requests until standard input ends."""
    restrict(memory_bytes=int(sys.argv[1]))
    # Not before the limits, but before there is anything to decode: it takes a third of a second.
    import pydicom.pixels.decoders.base  # noqa: F401, PLC0415

    # Libraries print to standard output: keep the pipe for answers alone.
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            answer_frame(json.loads(line), answers)


def restrict(memory_bytes: int) -> None:
    """Bound address space; no files written, no core dumps. Where the system has no such limits, time alone bounds."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415  # Unix only

    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def answer_frame(request: dict[str, Any], answers: BinaryIO) -> None:
    """Decode one compressed DICOM frame."""
    from pydicom.encaps import encapsulate  # noqa: PLC0415
    from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415

    with open(request["path"], "rb") as stream:  # noqa: PTH123  # pathlib costs start-up time
        parts = []
        for offset, size in request["fragments"]:
            stream.seek(offset)
            parts.append(stream.read(size))
    pixels, _ = get_decoder(request["transfer_syntax_uid"]).as_array(
        encapsulate([b"".join(parts)]),
        index=0,
        raw=True,
        decoding_plugin=request["decoder"],
        **request["pixel_module"],
    )
    stored = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    head = json.dumps({"dtype": stored.dtype.str, "bytes": stored.nbytes}).encode()
    view = memoryview(len(head).to_bytes(4, "little") + head + stored.tobytes())
    while view:
        view = view[answers.write(view) :]


if __name__ == "__main__":
    main()
