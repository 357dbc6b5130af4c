"""All settings: one frozen object, read from the environment once, passed in everywhere else."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tasks.endpoints import Endpoint, endpoints_of
from tasks.errors import ConfigurationError
from tasks.policy import PORTS, Allowed, Policy
from tasks.setting_values import (
    AccountSecrets,
    AccountWeights,
    AllowedAddresses,
    ApiKeys,
    ChunkLengths,
    CircuitList,
    Endpoints,
    Login,
    Milliseconds,
    MillisecondsList,
    Names,
    Ports,
    PositiveMilliseconds,
    RateLimits,
    RedisUrl,
    Secret,
    SecretList,
)
from tasks.weights import weights_of

REDIS_URL = "redis://127.0.0.1:6379/0"
PREFIX = "LONGHAND_"
# ONNX Runtime (under Silero VAD) and the Hugging Face client report what they do, unless told not to.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
UNPREFIXED = ("REDIS_URL", "WEBHOOK_SECRET")


def variable(field: str) -> str:
    """The environment variable a field is read from."""
    name = field.upper()
    return name if name in UNPREFIXED else PREFIX + name


class Settings(BaseModel):
    """Field `chunk_ms` is read from `LONGHAND_CHUNK_MS`; `docs/operations.md` lists them all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Of the command line's client commands: which API they talk to, with which key.
    api_url: str = "http://127.0.0.1:8000/v2/longhand"
    api_key: str = ""

    # redis://, rediss:// or sentinel://, with the number of the broker's database as its path.
    redis_url: RedisUrl = REDIS_URL
    webhook_secret: Secret = ""
    # Those before it, while receivers change over: they sign as well.
    webhook_previous_secrets: SecretList = ()
    # Secret -> the account whose webhooks it signs, in place of the two above; an account may have several.
    webhook_account_secrets: AccountSecrets = Field(default_factory=dict)
    # `name:model=...;priority=low;retention=SECONDS;dialect=v1`, in any choice. tasks/endpoints.py.
    endpoints: Endpoints = ()
    # Key -> the name its jobs are accounted to. Empty: anybody may submit, as "anonymous".
    api_keys: ApiKeys = Field(default_factory=dict)
    # Calls of an account in 10 s, by operation; the platform's own. One that is not named has no limit.
    rate_limits: RateLimits = ("run=1000", "runsync=2000", "status=2000", "cancel=100", "purge-queue=2")
    # `name=weight`: what an account gets while others want something, too. One that is not named has 1.
    account_weights: AccountWeights = ()
    # Of one account: jobs that wait, and minutes of audio a day (UTC). 0: no limit.
    max_queued_jobs: int = Field(0, ge=0)
    max_audio_minutes: int = Field(0, ge=0)
    # Of all accounts: jobs that wait. 0: no limit.
    max_waiting_jobs: int = Field(0, ge=0)
    # Of Redis' maxmemory, above which no new job is taken; the rest is for those that were. 0: no limit.
    max_redis_memory_percent: int = Field(80, ge=0, le=100)
    # Let anybody submit who can reach the API, where there is no key.
    allow_anonymous: bool = False
    allow_private_addresses: bool = False
    # Of what clients name, at public addresses.
    allowed_ports: Ports = PORTS
    # `name`, `*.suffix`, address or network, each for all endpoints or, with `endpoint=` before it, for one.
    allowed_addresses: AllowedAddresses = ()
    # Let Redis, the API and Flower be reached from other machines without a password that is hard to guess.
    allow_weak_passwords: bool = False
    # "user:password" of Flower.
    flower_login: Login = ""

    # Of the disks of the blob store and of downloads, left free for whatever else writes to them.
    disk_reserve_bytes: int = Field(64 * 1024**2, ge=0)
    # How long an ingest waits for room on a disk.
    disk_wait_ms: Milliseconds = 600_000
    data_dir: Path = Path("~/.longhand")
    # fsspec URL of the audio blobs; empty: a folder in data_dir.
    blob_url: str = ""
    # A folder whose sub-folders are models.
    model_dir: Path | None = None
    # The model of a job that names none; empty: by device (tasks/models.py).
    model: str = ""
    # What a job may name beside it; `default` stands for tasks/model_names.py's list, `*` for any.
    allowed_models: Names = ("default",)
    # What a worker loads at its start, the most important first; empty: the default one.
    preload_models: Names = ()
    # Of one process, for loaded models; 0: 2 GiB on a CPU, on a GPU what it has free.
    model_memory_bytes: int = Field(0, ge=0)
    # Prepare the next chunk while one is decoded; auto: where models run on a GPU.
    prefetch: Literal["auto", "on", "off"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "default"
    # None: by device (tasks/engine.py).
    batch_size: Annotated[int, Field(ge=1)] | None = None
    # The most of a window, and the silence after the longest of a chunk's; None: by device.
    window_ms: Annotated[int, Field(ge=1_000, le=30_000)] | None = None
    padding_ms: Annotated[int, Field(ge=0, le=30_000)] | None = None
    # Threads of one decoder on a CPU. One is best there: DESIGN.md has the figures.
    threads: int = Field(1, ge=1)
    # Of a caption, unless a single word is longer.
    segment_max_ms: Annotated[int, Field(ge=500)] = 7_000
    segment_max_chars: int = Field(84, ge=10)
    # "module:factory" of the engine; the factory takes the Settings and gives a tasks.engine.Engine.
    engine: str = "tasks.engine:FasterWhisperEngine"

    chunk_ms: Annotated[int, Field(ge=10_000)] = 300_000
    # Of what a job may ask for instead.
    min_chunk_ms: Annotated[int, Field(ge=10_000)] = 10_000
    max_chunk_ms: Annotated[int, Field(ge=10_000)] = 1_800_000
    # Lengths of a recording's first chunks, so that first text appears early.
    first_chunks_ms: ChunkLengths = (60_000, 120_000)
    # How far from its nominal place a cut may be moved to find silence.
    cut_search_ms: Milliseconds = 10_000
    max_source_bytes: int = Field(20 * 1024**3, ge=1)
    # Of one recording; a file of some MB may decode to years.
    max_recording_ms: PositiveMilliseconds = 172_800_000
    # Of a process that decodes, beyond what it starts with: a file says itself how much it needs.
    ingest_memory_bytes: int = Field(2**30, ge=64 * 2**20)
    # A host that sends less than this, on average after the first minute, is given up.
    min_source_bytes_per_s: int = Field(500, ge=0)
    # For one whole download, redirects and resumptions with it.
    max_source_ms: PositiveMilliseconds = 21_600_000
    source_timeout_ms: PositiveMilliseconds = 30_000
    max_redirects: int = Field(5, ge=0)
    max_run_bytes: int = Field(16 * 1024**2, ge=1)
    max_runsync_bytes: int = Field(20 * 1024**2, ge=1)
    # None: as max_source_bytes.
    max_upload_bytes: Annotated[int, Field(ge=1)] | None = None
    # Of an upload since its last use: bytes that came, or a job that named it.
    upload_retention_ms: PositiveMilliseconds = 86_400_000

    # A job that waits for longer is shown in progress: some clients give up one that is queued for 300 s.
    queue_visible_ms: Milliseconds = 120_000
    # End the stream of a failed job with an item that makes ivrit's clients up to 0.2.6 fail; others see it.
    stream_poison: bool = False
    # Of RunPod's handler: whether `detach` in a job's input lets it return before the job has ended.
    detach: Literal["refused", "allowed", "always"] = "allowed"
    # Of all that a job streams on RunPod, which takes about 20 MB.
    max_output_bytes: int = Field(15_000_000, ge=1)
    # A job of RunPod's that nobody has relayed for so long is ended; 0: it runs on.
    handler_lease_ms: Milliseconds = 30_000
    # Jobs that one RunPod handler relays at a time.
    handler_concurrency: int = Field(1, ge=1)

    lease_ms: PositiveMilliseconds = 60_000
    # Also how soon a worker learns of a cancellation.
    heartbeat_ms: PositiveMilliseconds = 3_000
    # A process whose work does not advance for so long is ended.
    stall_ms: PositiveMilliseconds = 180_000
    # A task message not claimed for so long counts as lost and is sent again.
    dispatch_ms: PositiveMilliseconds = 120_000
    reap_ms: PositiveMilliseconds = 1_000
    # What a worker may still take for the work in hand once it is told to end.
    soft_shutdown_ms: Milliseconds = 15_000
    max_attempts: int = Field(3, ge=1)
    # The wait before another attempt of a stage that failed.
    attempt_delay_ms: Milliseconds = 2_000
    max_starts: int = Field(20, ge=1)
    ttl_ms: PositiveMilliseconds = 86_400_000
    # 0: no limit, unless the job brings one.
    execution_timeout_ms: Milliseconds = 0
    retention_ms: PositiveMilliseconds = 86_400_000
    # Wait for Redis to have an accepted job on disk, where it keeps an append-only file.
    durable_accept: bool = True

    webhook_timeout_ms: PositiveMilliseconds = 10_000
    webhook_schedule_ms: MillisecondsList = (
        5_000,
        30_000,
        120_000,
        600_000,
        1_800_000,
        7_200_000,
        21_600_000,
        43_200_000,
    )
    # Requests to one receiver at a time, once it has shown that it works.
    webhook_concurrency: int = Field(4, ge=1)
    # A receiver that fails so often in a row is left alone, the first, second... time for so long.
    webhook_circuit_failures: int = Field(5, ge=1)
    webhook_circuit_open_ms: CircuitList = (30_000, 60_000, 120_000, 300_000, 600_000)
    # Of a webhook's body; a longer one has a link in place of the transcript, where public_url is set.
    webhook_max_bytes: int = Field(64 * 1024**2, ge=1024)
    # This API as receivers of webhooks reach it, such as https://longhand.example.com.
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/?#]+[^?#]*)?$")] = ""
    progress_interval_ms: Milliseconds = 10_000
    progress_step: float = Field(0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _heartbeats_fit(self) -> Self:
        if 2 * self.heartbeat_ms > self.lease_ms:
            raise ValueError("LONGHAND_HEARTBEAT_MS must be at most half of LONGHAND_LEASE_MS")
        return self

    @model_validator(mode="after")
    def _chunk_lengths_fit(self) -> Self:
        if self.min_chunk_ms > self.max_chunk_ms:
            raise ValueError("LONGHAND_MIN_CHUNK_MS must be at most LONGHAND_MAX_CHUNK_MS")
        return self

    def signing_secrets(self, account: str) -> tuple[str, ...]:
        """The secrets that sign an account's webhooks, the present one first; none: they are unsigned."""
        own = tuple(secret for secret, name in self.webhook_account_secrets.items() if name == account)
        return own or tuple(filter(None, (self.webhook_secret, *self.webhook_previous_secrets)))

    def limit(self, operation: str) -> int:
        """Calls of an account in 10 s; 0: no limit."""
        return int(dict(entry.split("=") for entry in self.rate_limits).get(operation, 0))

    def weight(self, account: str) -> str:
        """What an account is given beside others, as a decimal number."""
        return weights_of(self.account_weights).get(account, "1")

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint of this name, if there is one."""
        return endpoints_of(self.endpoints).get(name)

    @property
    def longest_retention_ms(self) -> int:
        """The retention of the endpoint that keeps its jobs longest."""
        own = [endpoint.retention_ms for endpoint in endpoints_of(self.endpoints).values()]
        return max(self.retention_ms if one is None else one for one in own)

    @property
    def endpoint_models(self) -> list[str]:
        """The default models of endpoints that have their own."""
        return [endpoint.model for endpoint in endpoints_of(self.endpoints).values() if endpoint.model]

    @property
    def endpoint_names(self) -> list[str]:
        """All endpoints there are."""
        return list(endpoints_of(self.endpoints))

    def policy(self, endpoint: str) -> Policy:
        """What jobs of an endpoint may have connected to."""
        entries = map(Allowed.parse, self.allowed_addresses)
        return Policy.of(
            allow_private=self.allow_private_addresses,
            ports=self.allowed_ports,
            allowed=tuple(entry for entry in entries if entry.endpoint in ("", endpoint)),
        )

    @property
    def upload_limit(self) -> int:
        """Of one upload, bytes."""
        return self.max_upload_bytes or self.max_source_bytes

    @property
    def blobs(self) -> str:
        """The fsspec URL of the blob store."""
        return self.blob_url or f"file://{self.data_path / 'blobs'}"

    @property
    def data_path(self) -> Path:
        return self.data_dir.expanduser().resolve()

    @property
    def scratch_path(self) -> Path:
        """Where downloads in progress are."""
        return self.data_path / "tmp"

    @property
    def state_url(self) -> str:
        """Job state lives in the database after the broker's, so that neither can flush the other."""
        parts = urlsplit(self.redis_url)
        number = parts.path.strip("/")
        return urlunsplit(parts._replace(path=f"/{int(number or 0) + 1}"))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the environment (this process's, unless one is passed in).

        Raises ConfigurationError for an unknown `LONGHAND_*` name or a wrong value.
        """
        environ = os.environ if environ is None else environ
        names = {variable(field): field for field in cls.model_fields}
        values: dict[str, Any] = {}
        for name, value in environ.items():
            if name == "REDIS_URL" and not value:
                continue  # a form that was left empty, such as that of RunPod's hub
            if name in names:
                values[names[name]] = value
            elif name.startswith(PREFIX):
                # Without the prefix that all share, or everything is close.
                bare = {known.removeprefix(PREFIX): known for known in names}
                close = [
                    bare[found] for found in difflib.get_close_matches(name.removeprefix(PREFIX), bare, 1)
                ]
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ConfigurationError(f"{name} is not a setting of Longhand{hint}")
        try:
            return cls(**(values | overrides))
        except ValidationError as error:
            first = error.errors()[0]
            name = f"{variable(str(first['loc'][0]))}: " if first["loc"] else ""
            raise ConfigurationError(f"{name}{first['msg'].removeprefix('Value error, ')}") from error


def refuse_telemetry() -> None:
    """Keep libraries from reporting home; call it before ONNX Runtime is imported, here or in a child."""
    os.environ.update(NO_TELEMETRY)


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment, changed so that a child reads `settings` from it."""
    environment = {**os.environ, **NO_TELEMETRY}
    for field, value in settings:
        if value is None:
            environment.pop(variable(field), None)
        else:
            environment[variable(field)] = _written(value)
    return environment


def _written(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{key}" for key, name in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
