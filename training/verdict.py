"""The characteriser without its mask decoder: most candidates are judged and never outlined.

ONNX Runtime computes every output of a graph, asked for or not, so the part that judges is a file of its own. It is
cut out of the finished graph, node by node as it stands there: its answers are the same bits.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx.utils import Extractor

from app.inference.manifest import NetworkFile
from app.inference.opening import VERDICT

VERDICT_FILE = "characteriser.verdict.onnx"


def without_mask(characteriser: bytes) -> bytes:
    """Only what leads to the probabilities and attributes.

    Parameters
    ----------
    characteriser
        A serialised graph of the manifest's kind ``axial-crops``, in any arithmetic.
    """
    model = onnx.load_model_from_string(characteriser)
    part = Extractor(model).extract_model(list(VERDICT.inputs), list(VERDICT.outputs))
    return bytes(part.SerializeToString())


def write_verdict(folder: Path, characteriser: str = "characteriser.onnx") -> NetworkFile:
    """Cut the characteriser of a model folder, and write the part beside it."""
    content = without_mask((folder / characteriser).read_bytes())
    (folder / VERDICT_FILE).write_bytes(content)
    return NetworkFile(file=VERDICT_FILE, sha256=hashlib.sha256(content).hexdigest())
