"""Models in memory: as many as may, never one less than is in use, each loaded once."""

from __future__ import annotations

import random
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.imaging.errors import ModelError
from app.inference.model_registry import KnownModel, ModelRegistry, StoreSource
from app.inference.model_store import LoadedModel, ModelFolder
from app.inference.network import SessionOptions
from tests.api.standins import Shelf, make_model
from tests.tiny_model import write_tiny_model

NAMES = "abcde"


@dataclass
class Counting(Shelf):
    """Counts loads, and knows when one model is being loaded twice at the same time."""

    loads: Counter[str] = field(default_factory=Counter)
    loading: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)

    def describe(self, folder: ModelFolder) -> KnownModel:
        model = super().load(folder)
        return KnownModel(folder, model.manifest, model.identity)

    def load(self, folder: ModelFolder) -> LoadedModel:
        assert folder.name not in self.loading, "loaded twice at once"
        self.loading.add(folder.name)
        self.loads[folder.name] += 1
        try:
            if folder.name in self.broken:
                raise ModelError("detector.onnx is damaged.", code="hash_mismatch")
            return super().load(folder)
        finally:
            self.loading.discard(folder.name)


def registry_of(names: str = NAMES, *, max_loaded: int) -> tuple[ModelRegistry, Counting]:
    source = Counting([make_model(name) for name in names])
    return ModelRegistry(source, max_loaded), source


def in_memory(registry: ModelRegistry) -> list[str]:
    """The one used last first."""
    return [model.identity.name for model in registry.loaded()]


def use(registry: ModelRegistry, names: str) -> None:
    for name in names:
        with registry.lease(registry.find(name)):
            pass


def test_the_longest_idle_goes() -> None:
    registry, source = registry_of(max_loaded=2)
    use(registry, "abac")
    assert in_memory(registry) == ["c", "a"]
    use(registry, "ab")
    assert in_memory(registry) == ["b", "a"]
    assert source.loads == {"a": 1, "b": 2, "c": 1}


def test_what_is_in_use_stays_and_the_bound_holds_again_afterwards() -> None:
    registry, _ = registry_of(max_loaded=1)
    with registry.lease(registry.find("a")) as a:
        with registry.lease(registry.find("b")):
            assert sorted(in_memory(registry)) == ["a", "b"]
        assert registry.loaded_as(a.identity) is a
        assert in_memory(registry) == ["a"]
    use(registry, "b")
    assert in_memory(registry) == ["b"]


def test_nothing_is_kept_where_nothing_may_be() -> None:
    registry, _ = registry_of(max_loaded=0)
    with registry.lease(registry.find("a")):
        assert in_memory(registry) == ["a"]
    assert in_memory(registry) == []


@given(steps=st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=40), max_loaded=st.integers(0, 4))
def test_any_order_of_leases_keeps_the_bound(steps: list[tuple[str, bool]], max_loaded: int) -> None:
    registry, _ = registry_of(max_loaded=max_loaded)
    leases: list[tuple[str, LoadedModel, ExitStack]] = []
    for name, begin in steps:
        if begin:
            stack = ExitStack()
            leases.append((name, stack.enter_context(registry.lease(registry.find(name))), stack))
        elif leases:
            leases.pop(ord(name) % len(leases))[2].close()
        leased = {name for name, _, _ in leases}
        assert leased <= set(in_memory(registry))
        assert len(in_memory(registry)) <= max(max_loaded, len(leased))
        assert all(registry.loaded_as(model.identity) is model for _, model, _ in leases)
    for _, _, stack in leases:
        stack.close()
    assert len(in_memory(registry)) <= max_loaded


def test_threads_share_a_load_and_never_lose_what_they_use() -> None:
    registry, source = registry_of(max_loaded=2)
    starting = threading.Barrier(8)

    def work(number: int) -> None:
        chance = random.Random(number)
        starting.wait()
        for _ in range(300):
            name = chance.choice(NAMES)
            with registry.lease(registry.find(name)) as model:
                assert model.identity.name == name
                assert registry.loaded_as(model.identity) is model
                assert len(registry.loaded()) <= 8

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert len(in_memory(registry)) <= 2
    assert sum(source.loads.values()) > len(NAMES)


def test_all_who_ask_at_once_wait_for_one_load() -> None:
    registry, source = registry_of(max_loaded=2)
    starting = threading.Barrier(8)

    def work(_number: int) -> LoadedModel:
        starting.wait()
        with registry.lease(registry.find("a")) as model:
            return model

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(8)))
    assert len({id(model) for model in found}) == 1
    assert source.loads == {"a": 1}


def test_what_cannot_be_loaded_takes_no_place_and_is_listed_with_its_reason_until_it_can() -> None:
    registry, source = registry_of("ab", max_loaded=2)
    source.broken.add("b")
    for _ in range(2):
        with pytest.raises(ModelError, match="damaged"), registry.lease(registry.find("b")):
            raise AssertionError("lent")
    assert in_memory(registry) == []
    usable, invalid = registry.listed()
    assert [model.identity.name for model in usable] == ["a"]
    assert [(one.folder.name, one.error.code) for one in invalid] == [("b", "hash_mismatch")]
    source.broken.clear()
    use(registry, "b")
    assert len(registry.listed()[0]) == 2


def test_what_could_not_be_loaded_pushes_nothing_out_later() -> None:
    registry, source = registry_of("abc", max_loaded=2)
    source.broken.add("c")
    use(registry, "b")
    with pytest.raises(ModelError), registry.lease(registry.find("c")):
        raise AssertionError("lent")
    use(registry, "a")
    assert in_memory(registry) == ["a", "b"]


def test_an_error_of_who_has_the_lease_is_not_the_model_s() -> None:
    registry, _ = registry_of("a", max_loaded=1)
    with pytest.raises(ModelError), registry.lease(registry.find("a")):
        raise ModelError("The network could not be run.", code="inference_failed")
    assert in_memory(registry) == ["a"]
    assert registry.listed()[1] == []


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("two_versions")
    for version in ("1.0.0", "1.1.0"):
        write_tiny_model(store, version=version)
    return store


@pytest.fixture
def store(tmp_path: Path, two_versions: Path) -> Path:
    """A store of this test's own, so that it may be changed."""
    return Path(shutil.copytree(two_versions, tmp_path / "store"))


def of_store(store: Path) -> ModelRegistry:
    return ModelRegistry(StoreSource(store, SessionOptions(device="cpu", threads=1), "fp32"), max_loaded=1)


def test_a_model_of_the_store_is_found_and_runs(store: Path) -> None:
    registry = of_store(store)
    assert registry.find("tiny").identity.version == "1.1.0"
    with registry.lease(registry.find("tiny", "1.0.0")) as model:
        assert model.identity == registry.find("tiny", "1.0.0").identity
        assert model.execution_provider == "CPUExecutionProvider"


def test_another_hash_than_the_one_meant_is_refused_and_names_both(store: Path) -> None:
    registry = of_store(store)
    sha256 = registry.find("tiny", "1.0.0").identity.sha256
    with pytest.raises(ModelError) as refused:
        registry.find("tiny", "1.0.0", "0" * 64)
    assert refused.value.code == "model_changed"
    assert (refused.value.values["expected"], refused.value.values["found"]) == ("0" * 64, sha256)
    assert registry.find("tiny", "1.0.0", sha256).identity.sha256 == sha256


def test_a_model_in_memory_outlives_its_folder_and_goes_by_its_hash(store: Path) -> None:
    registry = of_store(store)
    known = registry.find("tiny", "1.0.0")
    with registry.lease(known):
        shutil.rmtree(store / "tiny" / "1.0.0")
        assert registry.find("tiny", "1.0.0", known.identity.sha256) == known
        with pytest.raises(ModelError) as refused:
            registry.find("tiny", "1.0.0")
        assert refused.value.code == "model_unknown"


def test_a_folder_changed_between_finding_and_loading_is_not_taken_for_the_one_found(store: Path) -> None:
    registry = of_store(store)
    known = registry.find("tiny", "1.0.0")
    manifest = store / "tiny" / "1.0.0" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ModelError) as refused, registry.lease(known):
        raise AssertionError("lent")
    assert refused.value.code == "model_changed"
    assert registry.loaded() == []


def test_a_folder_under_another_name_than_its_own_is_listed_as_invalid(store: Path) -> None:
    (store / "tiny" / "1.1.0").rename(store / "tiny" / "2.0.0")
    usable, invalid = of_store(store).listed()
    assert [model.identity.version for model in usable] == ["1.0.0"]
    assert [(one.folder.version, one.error.code) for one in invalid] == [("2.0.0", "manifest_misplaced")]


def test_verifying_finds_what_loading_would_not_read(store: Path) -> None:
    """A variant that does not run here is checked all the same."""
    shutil.rmtree(store / "tiny" / "1.1.0")
    entry = {"file": "detector-int8.onnx", "sha256": "0" * 64, "arithmetic": "int8", "max_abs_difference": 0.1}
    folder = write_tiny_model(store, version="1.1.0", changes={"detector.variants": {"int8": entry}})
    (folder / "detector-int8.onnx").write_bytes(b"damaged")
    registry = of_store(store)
    with pytest.raises(ModelError, match=r"detector-int8\.onnx"):
        registry.verify(registry.find("tiny", "1.1.0"))
