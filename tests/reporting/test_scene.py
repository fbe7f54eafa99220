"""Surfaces lie where the masks lie, files are what their formats say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from trimesh import Trimesh

from app.imaging.lungs import segment_chest
from app.imaging.volume import CtVolume
from app.inference.findings import NoduleMask
from app.inference.measurements import volume_mm3
from app.phantom.chest import phantom_ct
from app.phantom.nodules import NoduleSpec
from app.reporting.glb import glb
from app.reporting.scene import MOST_BYTES, compact_parts, nodule_parts
from app.reporting.surfaces import surface
from app.reporting.usdz import usdz
from tests.reporting.gltf import faults_of, nodes_of
from tests.reporting.worlds import OBLIQUE, nodule_of, sphere

SPACING_MM = 2.5


@dataclass(frozen=True)
class Scene:
    volume: CtVolume
    findings: object
    content: bytes


@dataclass(frozen=True)
class FoundNodules:
    """As much of `Findings` as a scene looks at."""

    nodules: tuple


@pytest.fixture(scope="module")
def scene() -> Scene:
    world = phantom_ct(
        shape_zyx=(110, 150, 140), spacing_zyx_mm=(SPACING_MM,) * 3, direction_lps_zyx=OBLIQUE[:, ::-1] * (-1, 1, 1),
        nodules=[NoduleSpec(mm, "solid", "smooth", "free") for mm in (22.0, 9.0, 5.0)],
    )  # fmt: skip
    nodules = tuple(
        nodule_of(f"nodule-{number}", world.volume, true.center_lps_mm, true.diameter_mm)
        for number, true in enumerate(world.nodules, start=1)
    )
    findings = FoundNodules(nodules)
    return Scene(world.volume, findings, glb(compact_parts(world.volume, findings)))


def test_the_validator_of_khronos_finds_nothing(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "scene.glb"
    path.write_bytes(scene.content)
    assert faults_of(path) == {"errors": 0, "warnings": 0}
    path.write_bytes(scene.content[:-8] + b"\xff" * 8)  # it would have
    assert faults_of(path)["errors"] > 0
    assert len(scene.content) <= MOST_BYTES


def test_each_nodule_lies_where_the_answer_says(scene: Scene) -> None:
    nodes = nodes_of(scene.content)
    assert list(nodes) == ["lung-left", "lung-right", "airways", *(f"nodule-nodule-{n}" for n in (1, 2, 3))]
    for nodule in scene.findings.nodules:
        node = nodes[f"nodule-{nodule.id}"]
        assert node.extras["id"] == nodule.id
        assert np.allclose(node.extras["lps_mm"], nodule.center_lps_mm, atol=1e-3)
        middle = Trimesh(node.vertices_lps_mm, node.triangles).center_mass
        half_a_voxel = nodule.mask.grid.spacing_zyx_mm.min() / 2
        assert np.abs(middle - nodule.center_lps_mm).max() < half_a_voxel
        extent = np.ptp(node.vertices_lps_mm, axis=0)
        assert np.allclose(extent, nodule.diameter_mm, atol=2 * half_a_voxel + 0.1 * nodule.diameter_mm)


def test_lungs_and_airways_lie_where_their_masks_do(scene: Scene) -> None:
    nodes = nodes_of(scene.content)
    chest = segment_chest(scene.volume)
    for name, label in (("lung-right", 1), ("lung-left", 2)):
        places = chest.lungs.grid.to_patient(np.argwhere(chest.lungs.labels == label))
        vertices = nodes[name].vertices_lps_mm
        for end in (np.min, np.max):
            assert np.allclose(end(vertices, axis=0), end(places, axis=0), atol=4.5)  # drawn in cells of 5 mm
        assert np.allclose(Trimesh(vertices, nodes[name].triangles).center_mass, places.mean(axis=0), atol=1.5)
    assert nodes["lung-left"].vertices_lps_mm[:, 0].mean() > nodes["lung-right"].vertices_lps_mm[:, 0].mean()
    airways = chest.airways_grid.to_patient(np.argwhere(chest.airways))
    middle = Trimesh(nodes["airways"].vertices_lps_mm, nodes["airways"].triangles).center_mass
    assert np.allclose(middle, airways.mean(axis=0), atol=SPACING_MM)


def test_surfaces_are_closed_and_face_outwards(scene: Scene) -> None:
    for name, node in nodes_of(scene.content).items():
        solid = Trimesh(node.vertices_lps_mm, node.triangles)
        assert solid.is_watertight, name
        assert solid.volume > 0, name
    for nodule in scene.findings.nodules:
        (part,) = nodule_parts([nodule])
        solid = Trimesh(part.surface.vertices_lps_mm, part.surface.triangles)
        assert solid.volume == pytest.approx(volume_mm3(nodule.mask), rel=0.12)
        outwards = part.surface.vertices_lps_mm - np.array(nodule.center_lps_mm)
        assert ((outwards * part.surface.normals).sum(axis=1) > 0).mean() > 0.99


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_the_way_a_mask_is_stored_does_not_matter(flips: tuple[int, int, int]) -> None:
    straight = sphere((10.0, -20.0, 30.0), 12.0)
    turned = straight.voxels[tuple(slice(None, None, flip) for flip in flips)]
    affine = straight.grid.affine.copy()
    affine[:3, 3] = straight.grid.to_patient([0 if f > 0 else n - 1 for f, n in zip(flips, turned.shape, strict=True)])
    affine[:3, :3] *= flips
    mask = NoduleMask(turned, type(straight.grid)(turned.shape, affine))
    shapes = [surface(one.voxels, one.grid, 1.0) for one in (straight, mask)]
    volumes = [Trimesh(one.vertices_lps_mm, one.triangles).volume for one in shapes]
    assert volumes[0] == pytest.approx(volumes[1], rel=1e-6)
    assert volumes[0] > 0


def test_a_single_voxel_is_not_smoothed_away() -> None:
    mask = sphere((0.0, 0.0, 0.0), 0.5)
    assert mask.voxels.sum() == 1
    shape = surface(mask.voxels, mask.grid, 0.0)
    assert shape is not None
    assert np.allclose(shape.vertices_lps_mm.mean(axis=0), 0.0, atol=1e-6)
    assert surface(np.zeros((3, 3, 3), np.bool_), mask.grid, 0.0) is None


def test_the_usdz_passes_the_checks_of_openusd(scene: Scene, tmp_path: Path) -> None:
    from pxr import Usd, UsdGeom, UsdValidation  # noqa: PLC0415 - of the extra `usdz`, which `dev` holds

    path = tmp_path / "scene.usdz"
    parts = compact_parts(scene.volume, scene.findings)
    path.write_bytes(usdz(parts, tmp_path))
    assert list(tmp_path.iterdir()) == [path]
    stage = Usd.Stage.Open(str(path))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert [(error.GetName(), error.GetMessage()) for error in errors] == []
    assert (UsdGeom.GetStageMetersPerUnit(stage), UsdGeom.GetStageUpAxis(stage)) == (1.0, "Y")
    first = np.array(UsdGeom.Mesh(stage.GetPrimAtPath("/Chest/nodule_nodule_1")).GetPointsAttr().Get())
    x, y, z = first.mean(axis=0) * 1000.0
    assert np.allclose((-x, z, y), scene.findings.nodules[0].center_lps_mm, atol=1.0)
