"""Every failure a client can see: a stable code, a sentence that says what to do."""

from typing import ClassVar


class LonghandError(Exception):
    """Something went wrong inside Longhand; the worker's log has the details."""

    code: ClassVar[str] = "internal_error"
    # Whether another attempt of the same stage could end differently.
    retryable: ClassVar[bool] = False
    # Whether an attempt that ends in it counts as one of the few there are.
    charged: ClassVar[bool] = True

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or ""))


class ConfigurationError(LonghandError):
    """A setting is missing or wrong."""

    code = "configuration_error"


class InvalidInput(LonghandError):
    """The job's input is not what this endpoint accepts."""

    code = "invalid_input"


class NoSource(InvalidInput):
    """The input names no recording: pass `url`, or `blob` with base64 data."""

    code = "no_source"


class UnknownOption(InvalidInput):
    """An option is not one of those that are accepted."""

    code = "unknown_option"


class UnsupportedOption(InvalidInput):
    """An option is known but not supported yet."""

    code = "unsupported_option"


class UnsupportedScheme(InvalidInput):
    """Only http and https addresses can be fetched."""

    code = "unsupported_scheme"


class AddressRefused(LonghandError):
    """The address is not public, and is not allowed here."""

    code = "address_refused"


class SourceUnreachable(LonghandError):
    """The recording's host could not be reached."""

    code = "source_unreachable"
    retryable = True


class SourceRefused(LonghandError):
    """The recording's host answered with an error status."""

    code = "source_refused"


class SourceUnavailable(LonghandError):
    """The recording's host answered with a temporary error status."""

    code = "source_unavailable"
    retryable = True


class SourceTooLarge(LonghandError):
    """The recording is larger than this installation accepts."""

    code = "source_too_large"


class SourceTooSlow(LonghandError):
    """The recording's host sends too slowly."""

    code = "source_too_slow"


class SourceTooLong(LonghandError):
    """The recording lasts longer than this installation accepts."""

    code = "source_too_long"


class SourceChanged(LonghandError):
    """The recording at the URL changed between two attempts: submit it again."""

    code = "source_changed"


class SourceEmpty(LonghandError):
    """The file at the URL is empty."""

    code = "source_empty"


class NotMedia(LonghandError):
    """The file is not audio or video that can be read."""

    code = "not_media"


class NoAudioStream(LonghandError):
    """The file holds no audio stream."""

    code = "no_audio_stream"


class UnknownModel(LonghandError):
    """The model could not be found."""

    code = "unknown_model"


class ModelUnavailable(LonghandError):
    """The model could not be fetched for now: try again later."""

    code = "model_unavailable"
    retryable = True


class ModelNotAllowed(InvalidInput):
    """The model is not one of those that this installation offers."""

    code = "model_not_allowed"


class ModelLanguage(LonghandError):
    """The model does not speak the language that was asked for."""

    code = "model_language"


class EngineFailed(LonghandError):
    """The model failed on this part of the recording."""

    code = "engine_failed"
    retryable = True


class OutOfMemory(EngineFailed):
    """The device has no memory left for a single window: use a smaller model or compute type."""


class DeviceLost(EngineFailed):
    """The process cannot use its GPU any more, whatever it is given; another one can."""

    charged = False


class ChunkFailed(LonghandError):
    """A part of the recording could not be transcribed."""

    code = "chunk_failed"


class LeaseLost(LonghandError):
    """Another attempt took this work over, or the job has ended."""

    code = "lease_lost"


class Unexpected(LonghandError):
    """Something went wrong inside Longhand; the worker's log has the details."""

    retryable = True


class ExecutionTimeout(LonghandError):
    """executionTimeout exceeded"""

    code = "execution_timeout"


class HandlerLost(LonghandError):
    """The RunPod worker that relayed this job is gone: submit it again, which keeps what is done."""

    code = "handler_lost"


class BlobStoreFailed(LonghandError):
    """The blob store is full or away: try again later."""

    code = "blob_store_failed"
    retryable = True


class DiskFull(BlobStoreFailed):
    """There is no room left on the disk: try again later."""

    code = "disk_full"


class UploadNotFound(LonghandError):
    """There is no such upload, or not any more: upload the recording again."""

    code = "upload_not_found"


class UploadIncomplete(LonghandError):
    """The upload is not complete: send the rest of it, then submit again."""

    code = "upload_incomplete"


class QueueFull(LonghandError):
    """So many of your jobs wait that no more are taken: submit again when some have begun."""

    code = "queue_full"


class ServiceFull(LonghandError):
    """So many jobs wait here that no more are taken: submit again later."""

    code = "service_full"


class StoreFull(LonghandError):
    """The job store is nearly full and takes no new jobs: submit again later."""

    code = "store_full"


class QuotaExceeded(LonghandError):
    """You have had as much audio transcribed today as you may: submit again tomorrow (UTC)."""

    code = "quota_exceeded"


class JobGone(LonghandError):
    """The job is kept no longer."""

    code = "job_gone"


class Canceled(LonghandError):
    """The job was canceled."""

    code = "canceled"


class Expired(LonghandError):
    """The job's ttl passed before it was done: submit it again, with a longer `policy.ttl`."""

    code = "expired"
