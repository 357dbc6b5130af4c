"""How much memory a model takes is read from its file; a GPU's driver says what is free."""

import ctypes
import struct
from pathlib import Path
from typing import Any

import pytest

from tasks import models
from tasks.model_memory import estimated_bytes, free_gpu_bytes

FLOAT32, INT8, FLOAT16 = 0, 1, 4


def write_model(folder: Path, *variables: tuple[int, int, int], spec: str = "WhisperSpec") -> Path:
    """A model.bin with variables of this type, rank and number of bytes."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = struct.pack("<I", 6) + string(spec) + struct.pack("<II", 3, len(variables))
    for number, (kind, rank, length) in enumerate(variables):
        data += string(f"variable/{number}") + struct.pack(f"<B{rank}IBI", rank, *[1] * rank, kind, length)
        data += bytes(length)
    (folder / "model.bin").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("compute_type", "factor"),
    [("float32", 2), ("float16", 1), ("bfloat16", 1), ("int8", 0.5), ("int8_float16", 0.5), ("auto", 1)],
)
def test_a_model_takes_more_or_less_than_its_file(compute_type: str, factor: float) -> None:
    folder = models.resolve("tiny.en", None, download=False)
    # It is stored in 16 bits.
    size = (folder / "model.bin").stat().st_size
    assert estimated_bytes(folder, compute_type) == pytest.approx(factor * size, rel=0.001)


def test_each_variable_counts_by_its_own_type(tmp_path: Path) -> None:
    folder = write_model(tmp_path, (FLOAT32, 1, 400), (INT8, 2, 1000), (FLOAT16, 0, 20))
    assert estimated_bytes(folder, "float16") == 2 * (100 + 1000 + 10)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 1000, struct.pack("<IHI", 6, 0, 3)])
def test_a_file_of_another_form_counts_by_its_size(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    assert estimated_bytes(tmp_path, "int8") == len(data) // 2


class Driver:
    """What CUDA's driver does, of two GPUs; no GPU is here."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.called.append(name)
            if name == "cuDeviceGet":
                self.device = arguments[1]
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value = 1000 + self.device
            return int(name == self.fails)

        return call


def test_the_driver_says_what_is_free() -> None:
    driver = Driver()
    assert free_gpu_bytes(1, lambda _: driver) == 1001
    assert driver.called[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


@pytest.mark.parametrize(
    "call", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"]
)
def test_a_driver_that_fails_says_nothing(call: str) -> None:
    driver = Driver(fails=call)
    assert free_gpu_bytes(0, lambda _: driver) is None
    retained = "cuDevicePrimaryCtxRetain" in driver.called and call != "cuDevicePrimaryCtxRetain"
    assert ("cuDevicePrimaryCtxRelease_v2" in driver.called) == retained


def test_without_a_driver_nobody_knows() -> None:
    assert free_gpu_bytes(0, lambda name: ctypes.CDLL(f"{name}.that.is.not.there")) is None
