"""The models that a process keeps loaded, and what it does where its device has too little memory.

A model is kept by its files, device and compute type; what a job may choose is passed with each call.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog

from tasks.errors import OutOfMemory

log = structlog.get_logger()

CPU_BYTES = 2 * 1024**3
# Of a model on a GPU, beside its weights: what a batch is decoded in.
WORK_BYTES = 1024**3
# What to compute with where memory does not suffice; nothing takes less than the last of each device.
LIGHTER = {
    "cpu": {"float32": "int8", "int16": "int8", "auto": "int8"},
    "cuda": {
        "float32": "float16",
        "float16": "int8_float16",
        "bfloat16": "int8_bfloat16",
        "auto": "int8_float16",
    },
}


class Model(Protocol):
    """What a cache needs of a loaded model."""

    def unload(self) -> None:
        """Give its memory back; it is not used any more."""


M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Kind:
    """All that changes how a model is loaded."""

    path: Path
    device: str
    compute_type: str


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that models may take: `limit` bytes together, 0: whatever `free` says is left."""

    limit: int
    # Bytes that the device has left, None where nobody knows.
    free: Callable[[], int | None]
    # Bytes that a kind of model takes.
    size: Callable[[Kind], int]

    def suffices(self, kept: list[Kind], new: Kind) -> bool:
        """Whether one more model has its place beside those that are kept."""
        if self.limit:
            return sum(map(self.size, (*kept, new))) <= self.limit
        free = self.free()
        return free is None or self.size(new) + WORK_BYTES <= free


class ModelCache(Generic[M]):
    """Loaded models, the one that has been idle longest first.

    Not for several threads: a process decodes one chunk at a time.
    """

    def __init__(self, load: Callable[[Kind], M], room: Room) -> None:
        self._load = load
        self._room = room
        self._models: dict[Kind, M] = {}
        # What memory did suffice for: the compute type of a kind that was asked for, windows of one in use.
        self._instead: dict[Kind, Kind] = {}
        self._batch_sizes: dict[Kind, int] = {}
        # How often memory did not suffice, and what was done then.
        self.steps: Counter[str] = Counter()

    @property
    def kinds(self) -> list[Kind]:
        """What is loaded, the one that goes first at the beginning."""
        return list(self._models)

    def get(self, asked: Kind) -> M:
        """A model, loaded if need be, in a lighter compute type if it did not fit in this one.

        A model that is larger than all the room there is stands alone. Raises OutOfMemory where even the
        lightest does not fit, and what loading raises.
        """
        while True:
            kind = self._instead.get(asked, asked)
            model = self._models.pop(kind, None)
            try:
                if model is None:
                    model = self._loaded(kind)
            except OutOfMemory as error:
                self._lighten(asked, kind, error)
                continue
            self._models[kind] = model
            return model

    def batch_size(self, asked: Kind, most: int) -> int:
        """How many windows to decode together: no more than have been found to fit in this process."""
        return min(most, self._batch_sizes.get(self._instead.get(asked, asked), most))

    def is_lighter(self, asked: Kind) -> bool:
        """Whether a model computes in a lighter type than was asked for, from when it did not fit on."""
        return asked in self._instead

    def less(self, asked: Kind, batch: int, error: OutOfMemory) -> None:
        """Memory did not suffice for a batch of so many windows: what comes next takes less.

        First no other model beside it; then a smaller batch; then a lighter compute type. Raises `error`
        where there is nothing less.
        """
        kind = self._instead.get(asked, asked)
        if len(self._models) > 1:
            self._drop_all_but(kind)
        elif batch > 1:
            self._batch_sizes[kind] = batch // 2
            self._told("batch", kind, batch_size=batch // 2)
        else:
            self._lighten(asked, kind, error)

    def _loaded(self, kind: Kind) -> M:
        while self._models and not self._room.suffices(self.kinds, kind):
            self._drop(self.kinds[0])
        try:
            return self._load(kind)
        except OutOfMemory:
            if not self._models:
                raise
        # The estimate was too low.
        self._drop_all_but(kind)
        return self._load(kind)

    def _lighten(self, asked: Kind, kind: Kind, error: OutOfMemory) -> None:
        lighter = LIGHTER.get(kind.device, {}).get(kind.compute_type)
        if lighter is None:
            self._told("given up", kind)
            raise error
        if kind in self._models:
            self._drop(kind)
        self._instead[asked] = replace(kind, compute_type=lighter)
        self._told("compute type", self._instead[asked])

    def _drop_all_but(self, kind: Kind) -> None:
        for other in self.kinds:
            if other != kind:
                self._drop(other)
        self._told("others unloaded", kind)

    def _drop(self, kind: Kind) -> None:
        log.info("model_unloaded", model=kind.path.name, compute_type=kind.compute_type)
        self._models.pop(kind).unload()

    def _told(self, step: str, kind: Kind, **more: int) -> None:
        self.steps[step] += 1
        log.warning(
            "out_of_memory",
            step=step,
            device=kind.device,
            compute_type=kind.compute_type,
            count=self.steps[step],
            **more,
        )
