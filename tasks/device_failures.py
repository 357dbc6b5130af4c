"""What CTranslate2 raises, as our errors: whether less would fit, or another process could go on."""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import ConfigurationError, DeviceLost, EngineFailed, OutOfMemory, UnknownModel

# cudaErrorMemoryAllocation, and CUBLAS_STATUS_ALLOC_FAILED.
NO_MEMORY = ("out of memory", "ALLOC_FAILED")
# CUDA's sticky errors, after which nothing works in this process any more: in cudaGetErrorString's words,
# which follow CTranslate2's "CUDA failed with error", and as cuBLAS and cuDNN name them.
LOST = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "illegal address",
    "invalid program counter",
    "hardware stack error",
    "uncorrectable",
    "NVLink error",
    "launch timed out",
    "context is destroyed",
    "driver shutting down",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_MAPPING_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",
)


@contextmanager
def named_failures(loading: str = "") -> Iterator[None]:
    """Turn what CTranslate2 raises into our errors; `loading` is the model that is being loaded.

    Raises OutOfMemory, DeviceLost, EngineFailed, and while loading ConfigurationError and UnknownModel.
    """
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or _says(reason, NO_MEMORY):
            raise OutOfMemory(f"{OutOfMemory.__doc__} ({reason})") from error
        if _says(reason, LOST):
            raise DeviceLost(f"{DeviceLost.__doc__} ({reason})") from error
        if not loading:
            raise EngineFailed(f"The model failed while decoding: {reason}") from error
        if "compute type" in reason:
            raise ConfigurationError(f"LONGHAND_COMPUTE_TYPE does not suit this device: {reason}") from error
        if "CUDA" in reason or "cuDNN" in reason:
            raise EngineFailed(f"The GPU cannot be used: {reason}") from error
        raise UnknownModel(f"Model {loading!r} cannot be loaded: {reason}") from error


def _says(reason: str, words: tuple[str, ...]) -> bool:
    return any(word.lower() in reason.lower() for word in words)
