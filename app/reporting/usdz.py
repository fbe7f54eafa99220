"""Surfaces as USDZ, for Quick Look on a phone; needs the extra `usdz` (OpenUSD, 209 MB)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from app.inference.findings import DISCLAIMER
from app.reporting.errors import ExtraMissing
from app.reporting.glb import LPS_TO_GLTF, Part, to_gltf_m

MEDIA_TYPE = "model/vnd.usdz+zip"


def usdz(parts: Sequence[Part], scratch: Path) -> bytes:
    """The parts as a USDZ package, in the frame of `app.reporting.glb`: metres, +Y up.

    Parameters
    ----------
    parts
        What to show.
    scratch
        Folder for what is written on the way.

    Raises
    ------
    ExtraMissing
        OpenUSD is not installed.
    """
    refuse_without_extra()
    from pxr import Sdf, UsdUtils  # noqa: PLC0415 - 209 MB, optional

    with tempfile.TemporaryDirectory(dir=scratch) as name:
        layer, package = Path(name) / "scene.usdc", Path(name) / "scene.usdz"
        _write_stage(parts, layer)
        UsdUtils.CreateNewARKitUsdzPackage(Sdf.AssetPath(str(layer)), str(package))
        return package.read_bytes()


def refuse_without_extra() -> None:
    """Say what is missing before anything is computed.

    Raises
    ------
    ExtraMissing
        OpenUSD is not installed.
    """
    if find_spec("pxr") is None:
        raise ExtraMissing(
            "USDZ needs the extra `usdz`, which is not installed here. Take scene.glb, or have whoever runs the "
            "service install lungnodule[usdz].",
            values={"extra": "usdz"},
        )


def _write_stage(parts: Sequence[Part], path: Path) -> None:
    from pxr import Tf, Usd, UsdGeom  # noqa: PLC0415

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/Chest")
    root.GetPrim().SetDocumentation(DISCLAIMER)
    stage.SetDefaultPrim(root.GetPrim())
    for part in parts:
        _add(stage, f"/Chest/{Tf.MakeValidIdentifier(part.name)}", part)
    stage.GetRootLayer().Save()


def _add(stage: Any, path: str, part: Part) -> None:  # noqa: ANN401 - OpenUSD has no types
    from pxr import Gf, Sdf, UsdGeom, UsdShade, Vt  # noqa: PLC0415

    points = to_gltf_m(part.surface.vertices_lps_mm).astype(np.float32)
    normals = (part.surface.normals @ LPS_TO_GLTF.T).astype(np.float32)
    mesh = UsdGeom.Mesh.Define(stage, path)
    mesh.GetPrim().SetDisplayName(part.name)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(normals))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(part.surface.triangles), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(part.surface.triangles.ravel().astype(np.int32)))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateExtentAttr([Gf.Vec3f(*map(float, end)) for end in (points.min(axis=0), points.max(axis=0))])
    material = UsdShade.Material.Define(stage, f"{path}/Material")
    shader = UsdShade.Shader.Define(stage, f"{path}/Material/Shader")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set(Gf.Vec3f(*part.linear_rgb))
    shader.CreateInput("opacity", Sdf.ValueTypeNames.Float).Set(part.opacity)
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.8)
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
