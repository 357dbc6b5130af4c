"""Which models stay loaded, and what is done where memory does not suffice."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tasks.errors import OutOfMemory, UnknownModel
from tasks.model_cache import WORK_BYTES, Kind, ModelCache, Room


@dataclass(slots=True)
class Loaded:
    """A model of the device."""

    device: "Device"
    kind: Kind

    def unload(self) -> None:
        self.device.loaded.remove(self.kind)


@dataclass(slots=True)
class Device:
    """A device with so much memory, on which models of these sizes are loaded, and take a half as int8."""

    memory: int
    sizes: dict[str, int]
    # What a file claims to take; the device knows better.
    claims: dict[str, int] = field(default_factory=dict)
    loaded: list[Kind] = field(default_factory=list)
    loads: list[Kind] = field(default_factory=list)

    def load(self, kind: Kind) -> Loaded:
        if self.used() + self.size(kind) > self.memory:
            raise OutOfMemory
        self.loaded.append(kind)
        self.loads.append(kind)
        return Loaded(self, kind)

    def size(self, kind: Kind) -> int:
        return self.sizes[kind.path.name] // (2 if "int8" in kind.compute_type else 1)

    def claimed(self, kind: Kind) -> int:
        return self.claims.get(kind.path.name, self.size(kind))

    def used(self) -> int:
        return sum(map(self.size, self.loaded))

    def cache(self, limit: int = 0) -> ModelCache[Loaded]:
        return ModelCache(
            self.load, Room(limit, lambda: self.memory - self.used() + WORK_BYTES, self.claimed)
        )


def kind(name: str, compute_type: str = "float16", device: str = "cuda") -> Kind:
    return Kind(Path(name), device, compute_type)


def names(kinds: list[Kind]) -> list[str]:
    return [each.path.name for each in kinds]


def test_a_model_is_loaded_once_for_each_way_of_loading_it() -> None:
    device = Device(100, {"a": 10})
    cache = device.cache()
    first = cache.get(kind("a"))
    assert cache.get(kind("a")) is first
    assert cache.get(kind("a", "int8_float16")) is not first
    assert cache.get(kind("a", device="cpu")) is not first
    assert len(device.loads) == 3


@pytest.mark.parametrize("limit", [100, 0])
def test_the_one_that_was_idle_longest_makes_room(limit: int) -> None:
    device = Device(100, {"a": 40, "b": 40, "c": 30})
    cache = device.cache(limit)
    for name in ("a", "b", "a", "c"):
        cache.get(kind(name))
    assert names(cache.kinds) == ["a", "c"]
    assert device.loaded == cache.kinds, "what goes is unloaded"
    assert cache.steps == {}, "it fitted"


def test_a_model_that_is_larger_than_the_limit_stands_alone() -> None:
    device = Device(1000, {"a": 40, "huge": 400})
    cache = device.cache(limit=100)
    for name in ("a", "huge"):
        cache.get(kind(name))
    assert names(cache.kinds) == ["huge"]


@given(
    st.lists(st.sampled_from("abcdef"), max_size=40),
    st.fixed_dictionaries({name: st.integers(1, 60) for name in "abcdef"}),
)
def test_models_never_take_more_than_the_limit(asked: list[str], sizes: dict[str, int]) -> None:
    device = Device(10_000, sizes)
    cache = device.cache(limit=100)
    for place, name in enumerate(asked):
        cache.get(kind(name))
        assert device.loaded.count(kind(name)) == 1
        assert names(cache.kinds)[-1] == name
        assert device.used() <= 100
        # What is there was used after what is not, since that was loaded last.
        last = {
            each: max(i for i, other in enumerate(asked[: place + 1]) if other == each)
            for each in asked[: place + 1]
        }
        assert names(cache.kinds) == sorted(names(cache.kinds), key=last.__getitem__)


def test_others_go_where_an_estimate_was_too_low() -> None:
    device = Device(100, {"a": 40, "b": 40, "c": 60}, claims={"c": 10})
    cache = device.cache(limit=100)
    for name in ("a", "b", "c"):
        cache.get(kind(name))
    assert names(cache.kinds) == ["c"]
    assert cache.steps == {"others unloaded": 1}


def test_a_model_that_does_not_fit_is_loaded_lighter_and_stays_so() -> None:
    device = Device(100, {"a": 150})
    cache = device.cache()
    assert cache.get(kind("a")).kind == kind("a", "int8_float16")
    assert cache.get(kind("a")) is cache.get(kind("a"))
    assert device.loads == [kind("a", "int8_float16")]
    assert cache.steps == {"compute type": 1}
    assert cache.is_lighter(kind("a"))
    assert not cache.is_lighter(kind("b"))


def test_each_step_is_a_line_of_the_log() -> None:
    device = Device(100, {"a": 20, "b": 20})
    cache = device.cache()
    asked = kind("a")
    cache.get(kind("b"))
    cache.get(asked)
    with capture_logs() as lines:
        for batch in (4, 4, 2, 1):
            cache.less(asked, batch, OutOfMemory())
        with pytest.raises(OutOfMemory):
            cache.less(asked, 1, OutOfMemory())
    told = [
        {name: value for name, value in line.items() if name != "device"}
        for line in lines
        if (line["event"], line.get("device")) == ("out_of_memory", "cuda")
    ]
    step = {"event": "out_of_memory", "log_level": "warning"}
    heavy, light = step | {"compute_type": "float16"}, step | {"compute_type": "int8_float16"}
    assert told == [
        heavy | {"step": "others unloaded", "count": 1},
        heavy | {"step": "batch", "count": 1, "batch_size": 2},
        heavy | {"step": "batch", "count": 2, "batch_size": 1},
        light | {"step": "compute type", "count": 1},
        light | {"step": "given up", "count": 1},
    ]


def test_nothing_is_lighter_than_the_lightest() -> None:
    cache = Device(100, {"a": 1000}).cache()
    with pytest.raises(OutOfMemory):
        cache.get(kind("a"))
    assert cache.steps == {"compute type": 1, "given up": 1}
    with pytest.raises(OutOfMemory):
        Device(100, {"a": 1000}).cache().get(kind("a", "int8", "cpu"))


def test_what_loading_raises_is_raised() -> None:
    def missing(_: Kind) -> Loaded:
        raise UnknownModel

    with pytest.raises(UnknownModel):
        ModelCache(missing, Room(100, lambda: None, lambda _: 1)).get(kind("a"))


def test_less_is_first_nothing_beside_it_then_a_smaller_batch_then_a_lighter_type() -> None:
    device = Device(100, {"a": 20, "b": 20})
    cache = device.cache()
    cache.get(kind("b"))
    cache.get(kind("a"))
    error = OutOfMemory()
    assert cache.batch_size(kind("a"), 8) == 8
    cache.less(kind("a"), 8, error)
    assert (names(cache.kinds), cache.batch_size(kind("a"), 8)) == (["a"], 8)
    sizes = []
    while (size := cache.batch_size(kind("a"), 8)) > 1:
        cache.less(kind("a"), size, error)
        sizes.append(cache.batch_size(kind("a"), 8))
    assert sizes == [4, 2, 1]
    # It is remembered, and a caller who wants less gets that.
    assert cache.batch_size(kind("a"), 16) == 1
    cache.less(kind("a"), 1, error)
    assert cache.get(kind("a")).kind == kind("a", "int8_float16")
    assert device.loaded == [kind("a", "int8_float16")]
    # A lighter model leaves more room.
    assert cache.batch_size(kind("a"), 8) == 8
    cache.less(kind("a"), 3, error)
    assert cache.batch_size(kind("a"), 8) == 1
    with pytest.raises(OutOfMemory) as caught:
        cache.less(kind("a"), 1, error)
    assert caught.value is error
    assert cache.steps == {"others unloaded": 1, "batch": 4, "compute type": 1, "given up": 1}


@pytest.mark.parametrize(
    ("device", "heavy", "light"),
    [
        ("cuda", "float32", "float16"),
        ("cuda", "float16", "int8_float16"),
        ("cuda", "bfloat16", "int8_bfloat16"),
        ("cpu", "float32", "int8"),
    ],
)
def test_each_device_has_its_own_lighter_types(device: str, heavy: str, light: str) -> None:
    cache = Device(100, {"a": 20}).cache()
    asked = kind("a", heavy, device)
    cache.get(asked)
    cache.less(asked, 1, OutOfMemory())
    assert cache.get(asked).kind.compute_type == light
