"""Many models in the store, few in memory: loaded when they are needed, lent while they are in use.

A model that is lent is never unloaded. One that nobody uses stays until another needs its place; then the one that has
been idle longest goes. So memory holds at most ``max_loaded`` models, or as many as are in use at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from app.imaging.errors import ModelError
from app.inference.findings import ModelIdentity
from app.inference.manifest import ModelManifest, load_manifest_and_sha256
from app.inference.model_store import (
    LoadedModel,
    ModelFolder,
    list_models,
    load_model,
    newest_fitting,
    verify_model,
    warm_up,
)
from app.inference.network import SessionOptions
from app.inference.signature import PublicKey, require_signature


@dataclass(frozen=True)
class KnownModel:
    """A model of the store as its manifest describes it; its networks need not be in memory."""

    folder: ModelFolder
    manifest: ModelManifest
    identity: ModelIdentity


@dataclass(frozen=True)
class InvalidModel:
    """A folder of the store that cannot be used, with the reason."""

    folder: ModelFolder
    error: ModelError


class ModelSource(Protocol):
    """Where models come from. `StoreSource` is the store; every method blocks and reads anew."""

    def folders(self) -> list[ModelFolder]:
        """All there are, the versions of each name from the oldest to the newest."""

    def describe(self, folder: ModelFolder) -> KnownModel:
        """What the manifest says, or a `ModelError`."""

    def verify(self, folder: ModelFolder) -> None:
        """Check every file, those of variants that do not run here included; or a `ModelError`."""

    def load(self, folder: ModelFolder) -> LoadedModel:
        """Verify, open and warm up; or a `ModelError`."""


@dataclass(frozen=True)
class StoreSource:
    """The folders of a model store.

    Parameters
    ----------
    store
        Holds ``<name>/<version>/manifest.json``.
    session, precision
        How networks are opened: `load_model`.
    keys
        Of those who may sign models; without any, a signature is not asked for.
    """

    store: Path
    session: SessionOptions
    precision: str
    keys: tuple[PublicKey, ...] = ()

    def folders(self) -> list[ModelFolder]:
        """See `ModelSource`."""
        return list_models(self.store)

    def describe(self, folder: ModelFolder) -> KnownModel:
        """See `ModelSource`."""
        manifest, sha256 = load_manifest_and_sha256(folder.path)
        if (manifest.name, manifest.version) != (folder.name, folder.version):
            path = folder.path / "manifest.json"
            raise ModelError(
                f"{path} describes {manifest.name} {manifest.version}, which belongs into the folder "
                f"{manifest.name}/{manifest.version} of the store.",
                code="manifest_misplaced",
                values={"file": str(path), "name": manifest.name, "version": manifest.version},
            )
        self._expect_signed(folder, sha256)
        return KnownModel(folder, manifest, ModelIdentity(manifest.name, manifest.version, sha256))

    def verify(self, folder: ModelFolder) -> None:
        """See `ModelSource`."""
        verify_model(folder.path)

    def load(self, folder: ModelFolder) -> LoadedModel:
        """See `ModelSource`."""
        model = load_model(folder.path, self.session, self.precision)
        self._expect_signed(folder, model.identity.sha256)
        warm_up(model)
        return model

    def _expect_signed(self, folder: ModelFolder, sha256: str) -> None:
        """What was read is what was signed, even if the file changes meanwhile."""
        path = folder.path / "manifest.json"
        if self.keys and require_signature(path, self.keys) != sha256:
            raise ModelError(
                f"{path} changed while it was read. Try again.", code="hash_mismatch", values={"file": str(path)}
            )


@dataclass
class _Place:
    """One model's place in memory, taken before it is loaded."""

    leases: int = 0
    last_used: int = 0
    model: LoadedModel | None = None
    loading: threading.Lock = field(default_factory=threading.Lock)


class ModelRegistry:
    """The models of one process, for any number of threads.

    Parameters
    ----------
    source
        Where they come from.
    max_loaded
        Models kept in memory. More only while more are in use at once; 0 keeps none that nobody uses.
    """

    def __init__(self, source: ModelSource, max_loaded: int) -> None:
        self.source = source
        self.max_loaded = max_loaded
        self._places: dict[ModelIdentity, tuple[KnownModel, _Place]] = {}
        self._refusals: dict[ModelIdentity, ModelError] = {}
        self._clock = 0
        self._lock = threading.Lock()

    def find(self, name: str, version: str | None = None, sha256: str | None = None) -> KnownModel:
        """One model by name; without a version the newest of the store.

        With all three, a model in memory is found although its folder is gone or has been changed.

        Raises
        ------
        ModelError
            ``model_unknown`` when there is none of that name, ``model_changed`` when the one in the store has another
            sha256, or what is wrong with its manifest.
        """
        if version is not None and sha256 is not None:
            with self._lock:
                if (held := self._places.get(ModelIdentity(name, version, sha256))) is not None:
                    return held[0]
        model = self.source.describe(newest_fitting(self.source.folders(), name, version))
        if sha256 not in (None, model.identity.sha256):
            raise ModelError(
                f"{name} {model.identity.version} is not the model that was meant: sha256 {sha256} was promised, the "
                f"manifest in {model.folder.path} has {model.identity.sha256}.",
                code="model_changed",
                values={"file": str(model.folder.path), "expected": sha256, "found": model.identity.sha256},
            )
        return model

    def listed(self) -> tuple[list[KnownModel], list[InvalidModel]]:
        """Every model of the store: those that can be used, and those that cannot.

        A damaged network is known once a load or an activation has met it: a list reads manifests only.
        """
        usable, invalid = [], []
        for folder in self.source.folders():
            try:
                model = self.source.describe(folder)
            except ModelError as error:
                invalid.append(InvalidModel(folder, error))
                continue
            with self._lock:
                refusal = self._refusals.get(model.identity)
            if refusal is None:
                usable.append(model)
            else:
                invalid.append(InvalidModel(folder, refusal))
        return usable, invalid

    def loaded(self) -> list[LoadedModel]:
        """Those in memory, the one used last first."""
        with self._lock:
            places = sorted((place for _, place in self._places.values()), key=lambda place: -place.last_used)
            return [place.model for place in places if place.model is not None]

    def loaded_as(self, identity: ModelIdentity) -> LoadedModel | None:
        """A model, where it is in memory; not to be run without a lease."""
        with self._lock:
            held = self._places.get(identity)
            return None if held is None else held[1].model

    def verify(self, model: KnownModel) -> None:
        """Check every file of a model before it takes a place in memory.

        Raises
        ------
        ModelError
            Names the file.
        """
        with self._refusal_kept(model):
            self.source.verify(model.folder)

    @contextmanager
    def lease(self, model: KnownModel) -> Iterator[LoadedModel]:
        """Hold a model, loaded now where it is not yet; blocks meanwhile. Two that ask at once get the same one.

        Raises
        ------
        ModelError
            It cannot be loaded, or is no longer what it was when it was found.
        """
        place = self._enter(model)
        try:
            with place.loading:
                loaded = place.model
                if loaded is None:
                    loaded = self._load(model)
                    with self._lock:
                        place.model = loaded
            yield loaded
        finally:
            self._leave(model, place)

    def _enter(self, model: KnownModel) -> _Place:
        unloaded: list[ModelIdentity] = []
        with self._lock:
            if model.identity not in self._places:
                unloaded = self._make_room(self.max_loaded - 1)
                self._places[model.identity] = (model, _Place())
            place = self._places[model.identity][1]
            place.leases += 1
            self._touch(place)
        _tell_unloaded(unloaded)
        return place

    def _leave(self, model: KnownModel, place: _Place) -> None:
        with self._lock:
            place.leases -= 1
            self._touch(place)
            if place.leases == 0 and place.model is None:  # could not be loaded
                del self._places[model.identity]
            unloaded = self._make_room(self.max_loaded)
        _tell_unloaded(unloaded)

    def _touch(self, place: _Place) -> None:
        self._clock += 1
        place.last_used = self._clock

    def _make_room(self, keep: int) -> list[ModelIdentity]:
        """Unload what nobody uses, the longest idle first, until no more than ``keep`` are left."""
        idle = [identity for identity, (_, place) in self._places.items() if place.leases == 0]
        idle.sort(key=lambda identity: self._places[identity][1].last_used)
        excess = idle[: max(0, len(self._places) - max(0, keep))]
        for identity in excess:
            del self._places[identity]
        return excess

    def _load(self, model: KnownModel) -> LoadedModel:
        with self._refusal_kept(model):
            loaded = self.source.load(model.folder)
            if loaded.identity != model.identity:
                raise ModelError(
                    f"{model.folder.path} was changed while it was loaded. Ask again.",
                    code="model_changed",
                    values={"file": str(model.folder.path), "expected": model.identity.sha256},
                )
        _log(
            "model loaded",
            loaded.identity,
            execution_provider=loaded.execution_provider,
            precision=dict(loaded.precision),
            notices=[notice.message for notice in loaded.notices],
        )
        return loaded

    @contextmanager
    def _refusal_kept(self, model: KnownModel) -> Iterator[None]:
        """So that a list can show why, until it goes well."""
        try:
            yield
        except ModelError as error:
            with self._lock:
                self._refusals[model.identity] = error
            raise
        with self._lock:
            self._refusals.pop(model.identity, None)


def _tell_unloaded(identities: Sequence[ModelIdentity]) -> None:
    for identity in identities:
        _log("model unloaded", identity)


def _log(event: str, identity: ModelIdentity, **values: object) -> None:
    model = f"{identity.name}:{identity.version}"
    structlog.get_logger(__name__).info(event, model=model, sha256=identity.sha256, **values)
