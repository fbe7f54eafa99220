"""Surfaces as one binary glTF 2.0 file (GLB), written by hand: a header, a JSON chunk, a chunk of arrays.

glTF wants metres, +Y up and a right-handed frame. A point (x, y, z) in LPS mm becomes (-x, z, y) / 1000: the head is
up, the patient's right is +X and the back is +Z.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.findings import DISCLAIMER
from app.reporting.surfaces import Surface

MEDIA_TYPE = "model/gltf-binary"

LPS_TO_GLTF = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
"""Turns a direction; it is a rotation, so nothing is mirrored."""

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963


@dataclass(frozen=True)
class Part:
    """One thing to show.

    Parameters
    ----------
    name
        Of its node.
    surface
        Its shape.
    rgb
        sRGB, 0 to 255.
    opacity
        0 to 1; below 1 it is blended.
    extras
        JSON values for whoever reads the file.
    """

    name: str
    surface: Surface
    rgb: tuple[int, int, int]
    opacity: float = 1.0
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def linear_rgb(self) -> tuple[float, float, float]:
        """What glTF and USD want: linear, 0 to 1."""
        red, green, blue = (_linear(value / 255) for value in self.rgb)
        return red, green, blue


def to_gltf_m(points_lps_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3) patient LPS mm -> glTF's frame, metres."""
    return np.asarray(points_lps_mm @ LPS_TO_GLTF.T / 1000.0)


def glb(parts: Sequence[Part]) -> bytes:
    """The parts as a GLB file; the same bytes for the same parts."""
    arrays = _Arrays()
    meshes, materials, nodes = [], [], []
    for number, part in enumerate(parts):
        positions = to_gltf_m(part.surface.vertices_lps_mm).astype("<f4")
        normals = (part.surface.normals @ LPS_TO_GLTF.T).astype("<f4")
        primitive = {
            "attributes": {
                "POSITION": arrays.add(positions, _FLOAT, "VEC3", _ARRAY_BUFFER, bounded=True),
                "NORMAL": arrays.add(normals, _FLOAT, "VEC3", _ARRAY_BUFFER),
            },
            "indices": arrays.add_indices(part.surface.triangles, len(positions)),
            "material": number,
        }
        meshes.append({"name": part.name, "primitives": [primitive]})
        materials.append(_material(part))
        extras = {"extras": dict(part.extras)} if part.extras else {}
        nodes.append({"name": part.name, "mesh": number, **extras})
    document = {
        "asset": {"version": "2.0", "generator": "lungnodule", "extras": {"disclaimer": DISCLAIMER}},
        "scene": 0,
        "scenes": [{"name": "chest", "nodes": list(range(len(parts)))}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": materials,
        "accessors": arrays.accessors,
        "bufferViews": arrays.views,
        "buffers": [{"byteLength": len(arrays.content)}],
    }
    return _packed(document, bytes(arrays.content))


class _Arrays:
    """Numbers end to end, and what the JSON says of them."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: NDArray[Any], kind: int, shape: str, target: int, *, bounded: bool = False) -> int:
        """Append an array; the place of its accessor."""
        body = values.tobytes()
        self.views.append({"buffer": 0, "byteOffset": len(self.content), "byteLength": len(body), "target": target})
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1, "componentType": kind, "count": len(values), "type": shape,
        }  # fmt: skip
        if bounded:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.accessors.append(accessor)
        self.content += body + bytes(-len(body) % 4)
        return len(self.accessors) - 1

    def add_indices(self, triangles: NDArray[np.int64], vertices: int) -> int:
        """Append corners of triangles, as short as they can be."""
        short = vertices < 1 << 16
        flat = triangles.ravel().astype("<u2" if short else "<u4")
        return self.add(flat, _UINT16 if short else _UINT32, "SCALAR", _ELEMENT_ARRAY_BUFFER)


def _material(part: Part) -> dict[str, Any]:
    material: dict[str, Any] = {
        "name": part.name,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*(round(value, 5) for value in part.linear_rgb), part.opacity],
            "metallicFactor": 0.0,
            "roughnessFactor": 0.8,
        },
    }
    if part.opacity < 1:
        material |= {"alphaMode": "BLEND", "doubleSided": True}
    return material


def _linear(value: float) -> float:
    """SRGB to linear (IEC 61966-2-1)."""
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _packed(document: Mapping[str, Any], content: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    chunks = b"".join(
        struct.pack("<I4s", len(padded), kind) + padded
        for kind, padded in (
            (b"JSON", text + b" " * (-len(text) % 4)),
            (b"BIN\0", content + bytes(-len(content) % 4)),
        )
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
