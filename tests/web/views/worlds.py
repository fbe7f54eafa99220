"""A job whose scene is known to the millimetre, for the page alone: what the service would answer, by trimesh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, Route

EXAMPLE = Path(__file__).resolve().parents[3] / "app/api/static/example_result.json"
SHOTS = Path(__file__).resolve().parents[3] / "build/screenshots"
JOB = "3d0c9a52-0000-4000-8000-000000000001"
LUNGS_LPS_MM = {
    "lung-right": ((-70.0, 0.0, 0.0), (45.0, 70.0, 110.0)),
    "lung-left": ((70.0, 0.0, 0.0), (45.0, 70.0, 110.0)),
}
Nodules = dict[str, tuple[tuple[float, float, float], float]]
"""Name to (centre in LPS mm, diameter in mm)."""
NODULES_LPS_MM: Nodules = {"nodule-1": ((-70.0, -40.0, 50.0), 24.0), "nodule-2": ((75.0, 30.0, -40.0), 18.0)}


def gltf_from_lps(point_mm: NDArray[np.float64] | tuple[float, ...]) -> NDArray[np.float64]:
    """(x, y, z) in LPS mm to glTF's axes in metres: right, head, back."""
    x, y, z = np.asarray(point_mm, float) / 1000.0
    return np.array([-x, z, y])


def scene_glb(nodules: Nodules | None = None) -> bytes:
    """Two ellipsoids for lungs, a tube for airways, and a sphere for each nodule."""
    import trimesh  # noqa: PLC0415 - slow to import

    scene = trimesh.Scene()
    for name, (center, radii) in LUNGS_LPS_MM.items():
        lung = trimesh.creation.icosphere(subdivisions=3)
        lung.apply_scale(np.array([radii[0], radii[2], radii[1]]) / 1000.0)
        lung.apply_translation(gltf_from_lps(center))
        scene.add_geometry(lung, node_name=name, geom_name=name)
    airways = trimesh.creation.cylinder(radius=0.008, height=0.1)
    airways.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    airways.apply_translation(gltf_from_lps((0.0, 0.0, 60.0)))
    scene.add_geometry(airways, node_name="airways", geom_name="airways")
    for name, (center, diameter) in (NODULES_LPS_MM if nodules is None else nodules).items():
        ball = trimesh.creation.icosphere(subdivisions=3, radius=diameter / 2000.0)
        ball.apply_translation(gltf_from_lps(center))
        scene.add_geometry(ball, node_name=name, geom_name=name)
    return bytes(scene.export(file_type="glb"))


def result(nodules: Nodules | None = None) -> dict[str, Any]:
    """The example of the API's documentation with these nodules."""
    answer: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    answer["nodules"] = [
        nodule_like(answer["nodules"][0], name, center, diameter)
        for name, (center, diameter) in (NODULES_LPS_MM if nodules is None else nodules).items()
    ]
    return answer


def nodule_like(
    pattern: dict[str, Any], name: str, center_lps_mm: tuple[float, ...], diameter_mm: float
) -> dict[str, Any]:
    """The pattern with this place and size."""
    x, _, z = center_lps_mm
    place = {**(pattern["location"] or {}), "lobe": "upper" if z > 0 else "lower"}
    own = {"id": name, "center_lps_mm": list(center_lps_mm), "diameter_mm": diameter_mm, "location": place}
    return {**pattern, **own, "side": "right" if x < 0 else "left"}


def answers(nodules: Nodules | None = None) -> dict[str, Any]:
    """Path under /v1 to what is answered: bytes, (bytes, headers), a document, or (status, problem); or what gives
    one of these from the address."""
    return {
        f"jobs/{JOB}/result": result(nodules),
        f"jobs/{JOB}/scene.glb": scene_glb(nodules),
        "session": {"access": "off", "authenticated": False, "name": None, "roles": [], "tenant": None},
    }


@contextmanager
def answering(page: Page, given: dict[str, Any]) -> Iterator[list[str]]:
    """The page's requests below /v1 get these answers; gives the addresses that it asked, of any host."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        path = route.request.url.split("/v1/")[1].split("?")[0]
        found = given.get(path, (404, {"title": "Not found", "detail": "There is no such thing.", "code": "not_found"}))
        found = found(route.request.url) if callable(found) else found
        body, headers = found if isinstance(found, tuple) and isinstance(found[0], bytes) else (found, {})
        if isinstance(body, bytes):
            kind = {"content-type": "application/octet-stream"}
            route.fulfill(status=200, body=body, headers={**kind, **headers})
        elif isinstance(found, str):
            route.fulfill(status=200, body=found, content_type="text/markdown")
        else:
            status, document = found if isinstance(found, tuple) else (200, found)
            kind = "application/json" if status < 400 else "application/problem+json"
            route.fulfill(status=status, body=json.dumps(document), content_type=kind)

    page.on("request", lambda request: asked.append(request.url))
    page.route("**/v1/**", answer)
    yield asked
    page.unroute("**/v1/**")
