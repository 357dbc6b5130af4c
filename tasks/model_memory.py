"""How much memory a model takes once it is loaded, and how much a GPU has free. Nothing here loads one."""

import ctypes
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Bytes of one number, by the order of CTranslate2's DataType.
STORED_BYTES = (4, 1, 2, 4, 2, 2)
# Bytes of one weight on the device, by CTranslate2's compute type.
WEIGHT_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "int8": 1,
    "int8_float32": 1,
    "int8_float16": 1,
    "int8_bfloat16": 1,
}
# Of a file that cannot be read: as nearly all of the hub's models are stored.
FLOAT16 = 4


def estimated_bytes(folder: Path, compute_type: str) -> int:
    """What the weights of a CTranslate2 model take in a compute type; as on disk in one that is not known."""
    file = folder / "model.bin"
    size = file.stat().st_size
    per_weight = WEIGHT_BYTES.get(compute_type)
    if per_weight is None:
        return size
    try:
        with file.open("rb") as model:
            return sum(length // STORED_BYTES[kind] * per_weight for kind, length in _variables(model))
    except (struct.error, IndexError):
        return size // STORED_BYTES[FLOAT16] * per_weight


def _variables(model: BinaryIO) -> Iterator[tuple[int, int]]:
    """Type and length in bytes of each variable: ctranslate2/specs/model_spec.py writes them.

    Raises struct.error and IndexError for a file of another form.
    """
    model.seek(4)
    _skip_string(model)
    _, count = _read(model, "II")
    for _ in range(count):
        _skip_string(model)
        (rank,) = _read(model, "B")
        model.seek(4 * rank, 1)
        kind, length = _read(model, "BI")
        model.seek(length, 1)
        yield kind, length


def _skip_string(model: BinaryIO) -> None:
    (length,) = _read(model, "H")
    model.seek(length, 1)


def _read(model: BinaryIO, fields: str) -> tuple[int, ...]:
    form = f"<{fields}"
    return struct.unpack(form, model.read(struct.calcsize(form)))


def free_gpu_bytes(index: int, load: Callable[[str], Any] = ctypes.CDLL) -> int | None:
    """Free memory of a GPU of this process, by its driver; None where there is no telling.

    By the driver, and not by NVML, whose numbers ignore CUDA_VISIBLE_DEVICES. `load` opens a library.
    """
    try:
        driver = load("libcuda.so.1")
    except OSError:
        return None
    device, context, unused = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    # The context that CTranslate2 has, too: one of our own would take some of the memory.
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context):
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(unused))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return None if failed else free.value
