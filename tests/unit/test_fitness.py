"""When a process ends itself, and what CTranslate2 says when it has to."""

import contextlib

import pytest
from redis.exceptions import ConnectionError as RedisAway

from tasks.device_failures import named_failures
from tasks.errors import (
    BlobStoreFailed,
    ConfigurationError,
    DeviceLost,
    EngineFailed,
    InvalidInput,
    LeaseLost,
    LonghandError,
    OutOfMemory,
    UnknownModel,
)
from tasks.fitness import MAX_FAILURES, Fitness


def work(fitness: Fitness, error: BaseException | None = None) -> None:
    with contextlib.suppress(BaseException), fitness:
        if error:
            raise error


@pytest.mark.parametrize("error", [EngineFailed(), OutOfMemory(), RuntimeError("nobody foresaw this")])
def test_failures_in_a_row_end_a_process(error: Exception) -> None:
    fitness = Fitness()
    for _ in range(MAX_FAILURES - 1):
        work(fitness, error)
        assert fitness.ends == ""
    work(fitness, error)
    assert fitness.ends == "5 failures in a row"


def test_a_chunk_that_is_done_breaks_the_row() -> None:
    fitness = Fitness()
    for _ in range(3):
        for _ in range(MAX_FAILURES - 1):
            work(fitness, EngineFailed())
        work(fitness)
    assert (fitness.failures, fitness.ends) == (0, "")


@pytest.mark.parametrize(
    "error", [InvalidInput(), UnknownModel(), LeaseLost(), BlobStoreFailed(), RedisAway(), SystemExit()]
)
def test_what_is_not_the_fault_of_the_process_says_nothing(error: BaseException) -> None:
    fitness = Fitness()
    work(fitness, EngineFailed())
    for _ in range(2 * MAX_FAILURES):
        work(fitness, error)
    assert (fitness.failures, fitness.ends) == (1, "")


def test_a_lost_device_ends_a_process_at_once() -> None:
    fitness = Fitness()
    work(fitness, DeviceLost())
    work(fitness)
    assert fitness.ends == "device lost"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("CUDA failed with error out of memory", OutOfMemory),
        ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", OutOfMemory),
        ("CUDA failed with error an illegal memory access was encountered", DeviceLost),
        ("CUDA failed with error device-side assert triggered", DeviceLost),
        ("CUDA failed with error unspecified launch failure", DeviceLost),
        ("CUDA failed with error uncorrectable ECC error encountered", DeviceLost),
        ("CUDA failed with error the launch timed out and was terminated", DeviceLost),
        ("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED", DeviceLost),
        ("cuDNN failed with status CUDNN_STATUS_EXECUTION_FAILED", DeviceLost),
        ("cuDNN failed with status CUDNN_STATUS_NOT_SUPPORTED", EngineFailed),
        ("no such token", EngineFailed),
    ],
)
def test_what_ctranslate2_says_is_told_apart(reason: str, expected: type[LonghandError]) -> None:
    with pytest.raises(EngineFailed) as caught, named_failures():
        raise RuntimeError(reason)
    assert type(caught.value) is expected
    assert reason in str(caught.value)
    assert caught.value.charged == (expected is not DeviceLost)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), OutOfMemory),
        (RuntimeError("CUDA failed with error out of memory"), OutOfMemory),
        (RuntimeError("CUDA failed with error device-side assert triggered"), DeviceLost),
        (RuntimeError("CUDA driver version is insufficient for CUDA runtime version"), EngineFailed),
        (ValueError("Requested int3 compute type, but"), ConfigurationError),
        (RuntimeError("Unable to open file 'model.bin'"), UnknownModel),
    ],
)
def test_so_it_is_while_a_model_is_loaded(error: Exception, expected: type[LonghandError]) -> None:
    with pytest.raises(LonghandError) as caught, named_failures(loading="mine"):
        raise error
    assert type(caught.value) is expected
