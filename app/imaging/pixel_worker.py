"""Program of the child process that decodes what was sent, under limits of memory and rights.

Started by `app.imaging.child_process` as a script. It reads one JSON request per line and answers each with the
length of a JSON object (4 bytes, little endian), the object, and as many raw little endian voxel bytes as it says.
A fault that is not foreseen ends the process: its parent takes that for damaged data. It imports nothing of `app`,
so that a child costs no more than its decoders.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

Answer = dict[str, Any]


def main() -> None:
    """Answer requests until standard input ends."""
    restrict(memory_bytes=int(sys.argv[1]))
    # Libraries print to standard output: keep the pipe for answers alone.
    with os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if "fragments" in request:
                answer_frame(request, answers)
            else:
                answer_image(request, answers)


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


def answer_frame(request: Answer, answers: BinaryIO) -> None:
    """Decode one compressed DICOM frame."""
    from pydicom.encaps import encapsulate  # noqa: PLC0415  # the other request needs no pydicom
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
    send(answers, {"shape": list(stored.shape), "dtype": stored.dtype.str, "bytes": stored.nbytes}, [stored])


def answer_image(request: Answer, answers: BinaryIO) -> None:
    """Read one volume file with ITK as int16, with its geometry as ITK understands it."""
    import numpy as np  # noqa: PLC0415  # the other request gets it with pydicom
    import SimpleITK  # noqa: PLC0415

    sitk: Any = SimpleITK  # hardly typed
    reader = sitk.ImageFileReader()
    reader.SetImageIO(request["reader"])
    reader.SetFileName(request["path"])
    image = reader.Execute()
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() not in (3, 4):
        send(answers, {"fault": "not_scalar"})
        return
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.dtype.kind == "f" and not all(np.isfinite(plane).all() for plane in voxels):
        send(answers, {"fault": "not_finite"})
        return
    rounds = voxels.dtype != np.int16
    answer = {
        "shape": list(voxels.shape),
        "dtype": "<i2",
        "bytes": voxels.size * 2,
        "spacing_xyz_mm": list(image.GetSpacing()),
        "origin_lps_mm": list(image.GetOrigin()),
        "direction": list(image.GetDirection()),
    }
    send(
        answers,
        answer,
        (np.clip(np.rint(plane), -32768, 32767).astype(np.int16) if rounds else plane for plane in voxels),
    )


def send(answers: BinaryIO, head: Answer, payload: Iterable[Any] = ()) -> None:
    """Write an answer and the voxels after it."""
    encoded = json.dumps(head).encode()
    answers.write(len(encoded).to_bytes(4, "little") + encoded)
    for part in payload:
        view = memoryview(part).cast("B")
        while view:
            view = view[answers.write(view) :]


if __name__ == "__main__":
    main()
