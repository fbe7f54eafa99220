"""Reading and judging GLB files: our own small reader, and Khronos' validator, run by node.

The validator is one package of npm. It is installed once into a folder of the user's cache; where node, npm or the
registry are not there, what needs it is skipped, except in CI.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.reporting.validators import absent

VALIDATOR = "gltf-validator@2.0.0-dev.3.10"
CACHE = Path.home() / ".cache" / "lungnodule-tests" / "gltf-validator"
_PROGRAM = """
const validator = require(process.argv[1]);
const bytes = new Uint8Array(require("fs").readFileSync(process.argv[2]));
validator.validateBytes(bytes).then((report) => console.log(JSON.stringify(report)));
"""
_TYPES = {5126: np.float32, 5123: np.uint16, 5125: np.uint32}


@dataclass(frozen=True)
class Node:
    """One node with its mesh, in the patient's frame."""

    vertices_lps_mm: np.ndarray
    triangles: np.ndarray
    extras: dict[str, Any]


def nodes_of(content: bytes) -> dict[str, Node]:
    """The nodes of a GLB file by name; LPS (x, y, z) was written as (-x, z, y) metres."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, _ = struct.unpack_from("<I4s", content, 12)
    document, binary = json.loads(content[20 : 20 + size]), content[20 + size + 8 :]

    def array(number: int) -> np.ndarray:
        accessor = document["accessors"][number]
        view = document["bufferViews"][accessor["bufferView"]]
        body = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        values = np.frombuffer(body, _TYPES[accessor["componentType"]])
        return values.reshape(-1, 3)

    found = {}
    for node in document["nodes"]:
        (primitive,) = document["meshes"][node["mesh"]]["primitives"]
        x, y, z = array(primitive["attributes"]["POSITION"]).astype(float).T * 1000.0
        found[node["name"]] = Node(np.stack([-x, z, y], axis=1), array(primitive["indices"]), node.get("extras", {}))
    return found


def faults_of(path: Path) -> dict[str, int]:
    """Errors and warnings that the validator counts."""
    node = shutil.which("node") or absent("node", "nodejs")
    done = subprocess.run(
        [str(node), "-e", _PROGRAM, str(_validator()), str(path)], capture_output=True, text=True, check=True
    )
    issues = json.loads(done.stdout)["issues"]
    return {"errors": issues["numErrors"], "warnings": issues["numWarnings"]}


def _validator() -> Path:
    package = CACHE / "node_modules" / "gltf-validator"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (package / "package.json").is_file():
            npm = shutil.which("npm")
            if npm is None:
                absent("npm", "npm")
            command = [str(npm), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(CACHE)]
            done = subprocess.run([*command, VALIDATOR], capture_output=True, text=True, check=False, timeout=120)
            if done.returncode:
                absent("gltf-validator", f"the npm package {VALIDATOR}")
    return package
