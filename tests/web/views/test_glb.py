"""The page's GLB reader: what trimesh wrote is what it reads, and nothing that is broken gets past it or breaks it."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
import trimesh
from playwright.sync_api import Page

from tests.web.views.worlds import NODULES_LPS_MM, gltf_from_lps, scene_glb

READ = """async ([name, bytes]) => {
  const { readGlb, GlbError } = await import(name);
  const buffer = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0)).buffer;
  try {
    return readGlb(buffer).map(({ name, min, max, positions, normals, indices, extras }) =>
      ({ name, min, max, extras, points: positions.length / 3, triangles: indices.length / 3,
         out: positions[0] * normals[0] + positions[1] * normals[1] + positions[2] * normals[2] }));
  } catch (error) {
    if (error instanceof GlbError) return error.message;
    throw error;
  }
}"""


@pytest.fixture
def tab(page: Page, shell: str) -> Page:
    page.route("**/v1/**", lambda route: route.fulfill(status=404, json={"detail": "none"}))
    page.goto(f"{shell}/workspace/")
    return page


def read(tab: Page, shell: str, glb: bytes) -> Any:
    return tab.evaluate(READ, [f"{shell}/workspace/static/scene/glb.js", base64.b64encode(glb).decode()])


def parts_of(glb: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack_from("<I", glb, 12)[0]
    return json.loads(glb[20 : 20 + length]), glb[28 + length :]


def glb_of(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def test_what_was_written_is_read(tab: Page, shell: str):
    glb = scene_glb()
    found = {part["name"]: part for part in read(tab, shell, glb)}
    assert set(found) == {"lung-left", "lung-right", "airways", *NODULES_LPS_MM}
    for name, (center, diameter) in NODULES_LPS_MM.items():
        low, high = np.array(found[name]["min"]), np.array(found[name]["max"])
        np.testing.assert_allclose((low + high) / 2, gltf_from_lps(center), atol=1e-4)
        np.testing.assert_allclose(high - low, diameter / 1000, rtol=0.02)
    assert found["nodule-1"]["triangles"] == len(trimesh.creation.icosphere(subdivisions=3).faces)


def test_a_node_is_moved_with_those_above_it(tab: Page, shell: str):
    document, binary = parts_of(trimesh.creation.icosphere(radius=1.0).export(file_type="glb"))
    mesh = next(node["mesh"] for node in document["nodes"] if "mesh" in node)
    half = 2**-0.5  # a quarter turn about z takes x to y
    document["nodes"] = [
        {"children": [1], "rotation": [0, 0, half, half], "translation": [0, 0, 5]},
        {"name": "ball", "mesh": mesh, "translation": [3, 0, 0], "scale": [2, 2, 2], "extras": {"lps_mm": [1, 2, 3]}},
    ]
    document["scenes"], document["scene"] = [{"nodes": [0]}], 0
    (ball,) = read(tab, shell, glb_of(document, binary))
    np.testing.assert_allclose(ball["min"], [-2, 1, 3], atol=1e-5)
    np.testing.assert_allclose(ball["max"], [2, 5, 7], atol=1e-5)
    assert ball["extras"]["lps_mm"] == [1, 2, 3]


def broken(what: str) -> bytes:
    document, binary = parts_of(scene_glb())
    view, accessor = document["bufferViews"], document["accessors"]
    match what:
        case "beyond the buffer":
            accessor[0]["count"] = 10**9
        case "negative":
            view[0]["byteOffset"] = -8
        case "corner":
            index = next(a for a in accessor if a["type"] == "SCALAR")
            position = next(a for a in accessor if a["type"] == "VEC3")
            index["count"], index["bufferView"] = 3, position["bufferView"]
        case "loop":
            document["nodes"][0]["children"] = [0]
        case "extension":
            document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
        case "other file":
            accessor[0].pop("bufferView")
        case "not a number":
            binary = b"\xff" * len(binary)
    return glb_of(document, binary)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("beyond the buffer", "leaves its buffer"),
        ("negative", "makes no sense"),
        ("corner", "corner"),
        ("loop", "loop"),
        ("extension", "KHR_draco"),
        ("other file", "no data"),
        ("not a number", "no number"),
    ],
)
def test_what_is_broken_is_named(tab: Page, shell: str, what: str, said: str):
    assert said in read(tab, shell, broken(what))


def test_no_cut_and_no_flipped_byte_gets_past_it(tab: Page, shell: str):
    """A small file, cut and with 1200 seeded mutations: refused as such or sound numbers, nothing else."""
    glb = trimesh.creation.box().export(file_type="glb")
    rng = np.random.default_rng(7)
    mutants = [glb[:length] for length in (0, 3, 12, 19, 20, 21, 200, len(glb) - 1)]
    for _ in range(1200):
        mutant = bytearray(glb)
        for place in rng.integers(0, len(glb), 3):
            mutant[place] = rng.integers(0, 256)
        mutants.append(bytes(mutant))
    outcomes = tab.evaluate(
        """async ([name, all]) => {
          const { readGlb, GlbError } = await import(name);
          return all.map((bytes) => {
            try {
              const parts = readGlb(Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0)).buffer);
              const sound = (part) => part.positions.every(Number.isFinite)
                && part.indices.every((index) => index < part.positions.length / 3);
              return parts.every(sound) ? "read" : "unsound";
            } catch (error) {
              return error instanceof GlbError ? "refused" : String(error.stack);
            }
          });
        }""",
        [f"{shell}/workspace/static/scene/glb.js", [base64.b64encode(mutant).decode() for mutant in mutants]],
    )
    assert set(outcomes) == {"read", "refused"}
    assert outcomes[:8] == ["refused"] * 8
