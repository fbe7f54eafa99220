"""Stand-ins for a model and an analysis: what HTTP does is tested apart from what networks find."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from app.api.model_choice import NamedModels
from app.imaging.acceptance import AcceptanceReport, Notice, RejectedSeries, SeriesSummary
from app.imaging.volume import DicomIdentity, Grid
from app.inference.findings import Findings, Location, ModelIdentity, Nodule, OperatingPoint, SliceBox
from app.inference.manifest import ModelManifest
from app.inference.model_registry import KnownModel, ModelRegistry
from app.inference.model_store import LoadedModel, ModelFolder

SHA = "ab" * 32


def make_manifest(name: str = "standin", version: str = "1.2.3") -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": name,
            "version": version,
            "intended_use": "Tests only.",
            "preprocessing": {},
            "preprocessing_digest": SHA,
            "detector": {"file": "detector.onnx", "sha256": SHA, "score_threshold": 0.1},
            "characteriser": {"file": "characteriser.onnx", "sha256": SHA, "crop": {}},
            "operating_points": {
                "balanced": {"threshold": 0.4, "description": "Default."},
                "sensitive": {"threshold": 0.1, "description": "More."},
            },
            "default_operating_point": "balanced",
            "malignancy": {"meaning": "Rated 4 or 5 by readers."},
            "provenance": {
                "code": "abc",
                "config": "none",
                "seed": 0,
                "data": ["none"],
                "data_licence": "none",
                "created": "2026-11-23T00:00:00Z",
            },
        }
    )


def make_model(name: str = "standin", version: str = "1.2.3", notices: tuple[Notice, ...] = ()) -> LoadedModel:
    def network(inputs: Any) -> dict[str, Any]:
        raise AssertionError("the stand-in analysis runs no network")

    return LoadedModel(
        manifest=make_manifest(name, version),
        identity=ModelIdentity(name, version, SHA),
        detector=network,
        characteriser=network,
        execution_provider="CPUExecutionProvider",
        notices=notices,
    )


@dataclass
class Shelf:
    """Fits where the store does; gives models that are there already."""

    models: Sequence[LoadedModel]

    def folders(self) -> list[ModelFolder]:
        return [ModelFolder(Path("shelf"), one.identity.name, one.identity.version) for one in self.models]

    def describe(self, folder: ModelFolder) -> KnownModel:
        model = self.load(folder)
        return KnownModel(folder, model.manifest, model.identity)

    def verify(self, folder: ModelFolder) -> None:
        pass

    def load(self, folder: ModelFolder) -> LoadedModel:
        wanted = (folder.name, folder.version)
        return next(one for one in self.models if (one.identity.name, one.identity.version) == wanted)


def shelved(*models: LoadedModel) -> NamedModels:
    """These models, all in memory once the service has started; the first is the default."""
    registry = ModelRegistry(Shelf(models), max_loaded=len(models))
    return NamedModels(registry, tuple(registry.find(one.identity.name, one.identity.version) for one in models))


def make_nodule(number: int, probability: float) -> Nodule:
    return Nodule(
        id=f"nodule-{number}",
        probability=probability,
        malignancy_probability=0.25,
        label="benign",
        diameter_mm=7.25,
        long_axis_mm=8.0,
        short_axis_mm=6.5,
        volume_mm3=191.44,
        center_lps_mm=(10.0, -20.0, 30.0),
        box_index_zyx=((3.5, 4.5, 5.5), (6.5, 9.5, 10.5)),
        box_lps_mm=((6.0, -24.0, 26.0), (14.0, -16.0, 34.0)),
        slices=(SliceBox(4, (5.5, 4.5, 10.5, 9.5), "1.2.3.4.5", 17, None),),
        side="left",
        mean_hu=-41.26,
        attributes={"spiculation": 0.5},
        kind="part_solid",
        is_spiculated=True,
        long_axis_3d_mm=9.125,
        volume_interval_mm3=(150.24, 240.76),
        solid_diameter_mm=3.5,
        min_hu=-712.0,
        max_hu=88.0,
        mass_mg=120.46,
        signs=("fat",),
        location=Location("upper", 0.875, 1.5, 61.25, is_juxtapleural=True),
    )


def make_findings(*nodules: Nodule, **changes: Any) -> Findings:
    summary = SeriesSummary("1.2.3.4", "CT", 40, 64, 64, (2.0, 0.8, 0.8), 2.0, "B30f", "1.2.840.10008.1.2.1")
    report = AcceptanceReport(
        source_format="dicom",
        files_received=41,
        files_ignored=(Notice("not_an_image", "File 40 is no image.", {"file_index": 40}),),
        chosen=summary,
        rejected=(RejectedSeries(summary, (Notice("localizer", "A localizer."),)),),
        repairs=(),
        warnings=(Notice("thick_slices", "Slices are thick.", {"slice_thickness_mm": 3.0}),),
    )
    fields: dict[str, Any] = {
        "nodules": nodules,
        "acceptance": report,
        "identity": DicomIdentity("1.2.3", "1.2.3.4", "1.2.3.9"),
        "grid": Grid.from_spacing((40, 64, 64), (2.0, 0.8, 0.8), (-20.0, -30.0, -40.0)),
        "model": ModelIdentity("standin", "1.2.3", SHA),
        "execution_provider": "CPUExecutionProvider",
        "operating_point": OperatingPoint("balanced", 0.4),
        "malignancy_meaning": "Rated 4 or 5 by readers.",
        "timings_s": {"read": 0.12345, "detect": 0.5, "total": 0.7},
        "warnings": (Notice("partial_coverage", "The lungs are cut off."),),
    }
    return Findings(**{**fields, **changes})


class Recorder:
    """Stands in for `analyse`: keeps what it was called with and answers, or raises, what it was given."""

    def __init__(self) -> None:
        self.answer: Findings | Exception = make_findings(make_nodule(2, 0.5), make_nodule(1, 0.9))
        self.contents: list[tuple[str | None, bytes]] = []
        self.paths: list[Path] = []
        self.options: Any = None
        self.model: Any = None
        self.during: Callable[[Any], None] = lambda on_progress: None

    def __call__(self, files: Any, model: Any, options: Any, on_progress: Any) -> Findings:
        self.contents = [(file.name, file.path.read_bytes()) for file in files]
        self.paths = [file.path for file in files]
        self.options, self.model = options, model
        self.during(on_progress)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


Serve = Callable[..., TestClient]


def left_in(uploads: Path) -> list[Path]:
    """What requests left behind; the folders of running processes, and their locks, are none of it."""
    # os.walk passes over a folder that is removed while it is listed; a glob of Python 3.11 raises.
    found = [Path(folder) / name for folder, folders, files in os.walk(uploads) for name in (*folders, *files)]
    return [path for path in found if path.parent != uploads]
