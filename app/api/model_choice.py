"""Which model answers: the one named, the one activated, or the first of the settings; lent from the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from app.imaging.errors import LungNoduleError, ModelError, OptionError
from app.inference.findings import ModelIdentity
from app.inference.model_registry import KnownModel, ModelRegistry, StoreSource
from app.inference.network import SessionOptions
from app.inference.signature import parse_public_key
from app.jobs.activation import Activations
from app.jobs.records import DatabaseUnavailable
from app.jobs.rows import Who
from app.settings import Settings


class IntakeOnly(LungNoduleError):
    """Analyses are made by workers elsewhere; here no model is in memory."""

    default_code = "intake_only"


class ActivationRefused(LungNoduleError):
    """The model cannot be put in force; the one before still is."""

    default_code = "activation_refused"


@dataclass(frozen=True)
class NamedModels:
    """A registry, and the models of it that the settings name, the default first.

    Resolved once, at the start: a folder that is added later becomes nobody's default by being there.
    """

    registry: ModelRegistry
    named: tuple[KnownModel, ...]


OpenModels = Callable[[Settings], NamedModels]


@dataclass
class _LastSeen:
    active: ModelIdentity | None = None


@dataclass(frozen=True)
class Models:
    """The models of this process, and the choice that it shares with the others. Every method blocks."""

    registry: ModelRegistry
    named: tuple[KnownModel, ...]
    activations: Activations
    _seen: _LastSeen = field(default_factory=_LastSeen)

    def active(self) -> ModelIdentity:
        """The model in force, whether or not it can be used here.

        While the database does not answer, the one that was in force when it last did: an analysis does not need it.
        """
        try:
            self._seen.active = self.activations.active()
        except DatabaseUnavailable:
            structlog.get_logger(__name__).warning("active model not read", kept=True)
        return self._seen.active or self.named[0].identity

    def default(self) -> KnownModel:
        """The model in force.

        Raises
        ------
        ModelError
            It is not in this process's store, or not as it was when it was activated.
        """
        return self.exactly(self.active())

    def exactly(self, identity: ModelIdentity) -> KnownModel:
        """The very model, from memory or the store.

        Raises
        ------
        ModelError
            As `ModelRegistry.find`.
        """
        return self.registry.find(identity.name, identity.version, identity.sha256)

    def model(self, wanted: str | None) -> KnownModel:
        """The model called ``name`` or ``name:version``; without a name, the one in force.

        Of a name without a version, the one in force or of the settings comes before the newest of the store.

        Raises
        ------
        OptionError
            ``unknown_model``, with those that are there.
        ModelError
            It is there and cannot be used.
        """
        if wanted is None:
            return self.default()
        name, _, version = wanted.partition(":")
        if not version:
            preferred = [self.active(), *(model.identity for model in self.named)]
            if (identity := next((one for one in preferred if one.name == name), None)) is not None:
                return self.exactly(identity)
        try:
            return self.registry.find(name, version or None)
        except ModelError as error:
            if error.code != "model_unknown":
                raise
            available = error.values["available"]
            raise OptionError(
                f"The models here are {', '.join(available)}; name one of them.",
                code="unknown_model",
                values={"available": available},
            ) from None

    def activate(self, model: KnownModel, who: Who) -> ModelIdentity:
        """Verify, load and warm up a model, and only then put it in force; gives the one that was before.

        Raises
        ------
        ModelError
            It cannot be used. Nothing was changed, as after any other error.
        """
        self.registry.verify(model)
        with self.registry.lease(model):
            before = self.activations.activate(model.identity, who)
        return before or self.named[0].identity

    def load_first(self) -> None:
        """Load what the settings name and, last and so the last to go, the model in force.

        Where no model is to stay in memory, it is only looked at.

        Raises
        ------
        ModelError
            For the first one that cannot be used; names the file.
        """
        for model in (*reversed(self.named), self.default()):
            if self.registry.max_loaded:
                with self.registry.lease(model):
                    pass


def open_models(settings: Settings) -> NamedModels:
    """The registry of the store, and what the settings name in it; nothing is loaded yet.

    A service that only takes jobs in keeps none in memory. What it activates it opens once, on the CPU.

    Raises
    ------
    ModelError
        For the first one that the store does not hold or whose manifest is not valid.
    """
    source, kept = store_source(settings), settings.max_loaded_models
    if settings.worker_concurrency == 0:
        source, kept = replace(source, session=replace(source.session, device="cpu", require_gpu=False)), 0
    registry = ModelRegistry(source, kept)
    return NamedModels(registry, tuple(find_wanted(registry, wanted) for wanted in settings.models))


def store_source(settings: Settings) -> StoreSource:
    """The store, with networks opened as the settings say."""
    session = SessionOptions(
        device=settings.device,
        threads=settings.threads,
        require_gpu=settings.require_gpu,
        tensorrt_cache=settings.tensorrt_cache,
    )
    keys = tuple(map(parse_public_key, settings.model_keys))
    return StoreSource(settings.model_store, session, settings.precision, keys)


def find_wanted(registry: ModelRegistry, wanted: str) -> KnownModel:
    """``name`` or ``name:version`` in the store.

    Raises
    ------
    ModelError
        As `ModelRegistry.find`.
    """
    name, _, version = wanted.partition(":")
    return registry.find(name, version or None)


def called(identities: Sequence[ModelIdentity]) -> list[str]:
    """Each as ``name:version``."""
    return [f"{identity.name}:{identity.version}" for identity in identities]
