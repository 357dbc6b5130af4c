"""Settings from the environment: every field, its mistakes told by name, and the way to a child process."""

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.errors import ConfigurationError
from tasks.settings import Settings, child_environment, variable

# What each field is written as in the environment, and what it is then; none is the default.
SAMPLES: dict[str, tuple[str, object]] = {
    "api_url": ("http://a.test", "http://a.test"),
    "api_key": ("k", "k"),
    "redis_url": ("redis://r:1/2", "redis://r:1/2"),
    "webhook_secret": ("s", "s"),
    "endpoints": ("he:model=m;dialect=v1, slow:priority=low", ("he:model=m;dialect=v1", "slow:priority=low")),
    "api_keys": ("us:k1, them:k2", {"k1": "us", "k2": "them"}),
    "rate_limits": ("run=5, cancel=6", ("run=5", "cancel=6")),
    "account_weights": ("us=3, them=0.5", ("us=3", "them=0.5")),
    "max_queued_jobs": ("7", 7),
    "max_audio_minutes": ("7", 7),
    "max_waiting_jobs": ("7", 7),
    "max_redis_memory_percent": ("7", 7),
    "allow_anonymous": ("1", True),
    "allow_private_addresses": ("1", True),
    "allowed_ports": ("80, 9000", (80, 9000)),
    "allowed_addresses": ("nas.test, e=10.0.0.0/8", ("nas.test", "e=10.0.0.0/8")),
    "allow_weak_passwords": ("1", True),
    "flower_login": ("me:p", "me:p"),
    "disk_reserve_bytes": ("7", 7),
    "disk_wait_ms": ("7", 7),
    "data_dir": ("data", Path("data")),
    "blob_url": ("s3://b", "s3://b"),
    "model_dir": ("models", Path("models")),
    "model": ("tiny", "tiny"),
    "allowed_models": ("tiny, a/b", ("tiny", "a/b")),
    "preload_models": ("tiny, a/b", ("tiny", "a/b")),
    "model_memory_bytes": ("7", 7),
    "prefetch": ("on", "on"),
    "device": ("cpu", "cpu"),
    "compute_type": ("int8", "int8"),
    "batch_size": ("3", 3),
    "window_ms": ("22000", 22_000),
    "padding_ms": ("0", 0),
    "segment_max_ms": ("5000", 5000),
    "segment_max_chars": ("42", 42),
    "threads": ("3", 3),
    "engine": ("a:b", "a:b"),
    "chunk_ms": ("10000", 10_000),
    "min_chunk_ms": ("20000", 20_000),
    "max_chunk_ms": ("60000", 60_000),
    "first_chunks_ms": ("1000, 2000", (1000, 2000)),
    "cut_search_ms": ("7", 7),
    "max_source_bytes": ("7", 7),
    "source_timeout_ms": ("7", 7),
    "max_redirects": ("7", 7),
    "max_run_bytes": ("7", 7),
    "max_runsync_bytes": ("7", 7),
    "max_upload_bytes": ("7", 7),
    "upload_retention_ms": ("7", 7),
    "queue_visible_ms": ("7", 7),
    "stream_poison": ("1", True),
    "detach": ("always", "always"),
    "max_output_bytes": ("7", 7),
    "handler_concurrency": ("7", 7),
    "handler_lease_ms": ("7", 7),
    "lease_ms": ("70000", 70_000),
    "heartbeat_ms": ("7", 7),
    "min_source_bytes_per_s": ("7", 7),
    "max_source_ms": ("7", 7),
    "max_recording_ms": ("7", 7),
    "ingest_memory_bytes": ("70000000", 70_000_000),
    "stall_ms": ("7", 7),
    "dispatch_ms": ("7", 7),
    "reap_ms": ("7", 7),
    "soft_shutdown_ms": ("7", 7),
    "max_attempts": ("7", 7),
    "attempt_delay_ms": ("7", 7),
    "max_starts": ("7", 7),
    "ttl_ms": ("7", 7),
    "execution_timeout_ms": ("7", 7),
    "retention_ms": ("7", 7),
    "durable_accept": ("false", False),
    "webhook_timeout_ms": ("7", 7),
    "webhook_schedule_ms": ("7,8", (7, 8)),
    "webhook_previous_secrets": ("s1, s2", ("s1", "s2")),
    "webhook_account_secrets": ("us:s1,us:s2", {"s1": "us", "s2": "us"}),
    "webhook_concurrency": ("7", 7),
    "webhook_circuit_failures": ("7", 7),
    "webhook_circuit_open_ms": ("7,8", (7, 8)),
    "webhook_max_bytes": ("7000", 7000),
    "public_url": ("https://a.test", "https://a.test"),
    "progress_interval_ms": ("7", 7),
    "progress_step": ("0.5", 0.5),
}

names = st.text(string.ascii_letters + string.digits + "-_", min_size=1)
changes = st.fixed_dictionaries(
    {},
    optional={
        "api_keys": st.dictionaries(st.text(string.ascii_letters + ":=/+", min_size=1), names),
        "webhook_secret": st.text(string.printable.strip()),
        "allow_private_addresses": st.booleans(),
        "model_dir": names.map(Path),
        "first_chunks_ms": st.lists(st.integers(1000, 10**9), max_size=4).map(tuple),
        "webhook_schedule_ms": st.lists(st.integers(0, 10**9), max_size=4).map(tuple),
        "progress_step": st.floats(0, 1),
        "max_source_bytes": st.integers(1, 2**60),
        "durable_accept": st.booleans(),
    },
)


def test_there_is_a_sample_of_every_field() -> None:
    assert SAMPLES.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("field", SAMPLES)
def test_a_field_is_read_from_its_variable(field: str) -> None:
    written, value = SAMPLES[field]
    read = Settings.from_env({variable(field): written})
    assert getattr(read, field) == value
    assert value != getattr(Settings(), field), "a sample must differ from the default"
    others = set(SAMPLES) - {field}
    assert read.model_dump(include=others) == Settings().model_dump(include=others)


def test_only_two_variables_have_no_prefix() -> None:
    assert [variable(f) for f in SAMPLES if not variable(f).startswith("LONGHAND_")] == [
        "REDIS_URL",
        "WEBHOOK_SECRET",
    ]


def test_other_programs_variables_are_not_read() -> None:
    assert Settings.from_env({"PATH": "x", "CHUNK_MS": "1", "redis_url": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "LONGHAND_CHUNK_MSS",
            "LONGHAND_CHUNK_MSS is not a setting of Longhand; did you mean LONGHAND_CHUNK_MS?",
        ),
        ("LONGHAND_XYZZY_PLUGH_QUUX", "LONGHAND_XYZZY_PLUGH_QUUX is not a setting of Longhand"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: "1"})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("LONGHAND_CHUNK_MS", "soon", "integer"),
        ("LONGHAND_CUT_SEARCH_MS", "-1", "greater than or equal to 0"),
        ("LONGHAND_CHUNK_MS", "9999", "greater than or equal to 10000"),
        ("LONGHAND_LEASE_MS", "0", "greater than or equal to 1"),
        ("WEBHOOK_SECRET", "whsec_!!", "after whsec_ there must be a key in base64"),
        ("WEBHOOK_SECRET", "whsec_", "after whsec_ there must be a key in base64"),
        ("LONGHAND_DEVICE", "gpu", "'cuda'"),
        ("REDIS_URL", "unix:///run/redis.sock", "write it as"),
        ("REDIS_URL", "redis://r/zero", "write it as"),
        ("LONGHAND_BATCH_SIZE", "0", "greater than or equal to 1"),
        ("LONGHAND_PROGRESS_STEP", "1.5", "less than or equal to 1"),
        ("LONGHAND_WEBHOOK_SCHEDULE_MS", "5,x", "integer"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "us", "'us': write it as name=weight, of 0.01 to 1000"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "=3", "write it as name=weight"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "us=0", "write it as name=weight"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "us=1001", "write it as name=weight"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "us=-1", "write it as name=weight"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "us=inf", "write it as name=weight"),
        ("LONGHAND_ACCOUNT_WEIGHTS", "us=1,us=2", "us is given two weights"),
        ("LONGHAND_API_KEYS", "k1", "write it as name:key,name:key"),
        ("LONGHAND_API_KEYS", ":k1", "write it as name:key,name:key"),
        ("LONGHAND_API_KEYS", "us:", "write it as name:key,name:key"),
        ("LONGHAND_API_KEYS", "us:k,them:k", "the same key is given twice, to us and them"),
    ],
)
def test_a_wrong_value_is_told_by_the_variables_name(name: str, value: str, part: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: value})
    assert str(caught.value).startswith(f"{name}: ")
    assert part in str(caught.value)


def test_a_key_may_hold_colons_and_the_list_may_be_ragged() -> None:
    keys = Settings.from_env({"LONGHAND_API_KEYS": " us:a:b , ,them:c,"}).api_keys
    assert keys == {"a:b": "us", "c": "them"}


def test_an_override_wins_over_the_environment() -> None:
    assert Settings.from_env({"LONGHAND_MODEL": "a"}, model="b").model == "b"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().chunk_ms = 1  # type: ignore[misc]


@given(changes)
def test_a_child_reads_the_same_settings(fields: dict[str, Any]) -> None:
    settings = Settings(**fields)
    assert Settings.from_env(child_environment(settings)) == settings


def test_a_child_does_not_inherit_what_its_settings_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAND_MODEL_DIR", "models")
    settings = Settings(model_dir=None)
    assert Settings.from_env(child_environment(settings)) == settings


def test_a_child_keeps_the_rest_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "models")
    assert child_environment(Settings())["HF_HOME"] == "models"


@pytest.mark.parametrize(
    ("redis_url", "state_url"),
    [
        ("redis://r:6379/0", "redis://r:6379/1"),
        ("rediss://me:secret@r:6379/14", "rediss://me:secret@r:6379/15"),
        ("redis://r:6379", "redis://r:6379/1"),
        ("redis://r:6379/", "redis://r:6379/1"),
        ("rediss://r:6379/0?ssl_cert_reqs=none", "rediss://r:6379/1?ssl_cert_reqs=none"),
    ],
)
def test_the_state_is_in_the_database_after_the_brokers(redis_url: str, state_url: str) -> None:
    assert Settings(redis_url=redis_url).state_url == state_url


def test_blobs_live_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).blobs == f"file://{tmp_path.resolve() / 'blobs'}"
    assert Settings(data_dir=tmp_path, blob_url="s3://b").blobs == "s3://b"
    assert Settings(data_dir=Path("~/x")).data_path == Path.home() / "x"


def test_limits_of_chunks_that_leave_no_length_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="LONGHAND_MIN_CHUNK_MS"):
        Settings.from_env({"LONGHAND_MIN_CHUNK_MS": "60001", "LONGHAND_MAX_CHUNK_MS": "60000"})


def test_heartbeats_that_come_too_late_for_their_lease_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most half of LONGHAND_LEASE_MS"):
        Settings.from_env({"LONGHAND_LEASE_MS": "1000", "LONGHAND_HEARTBEAT_MS": "501"})


def test_an_empty_redis_url_is_none() -> None:
    assert Settings.from_env({"REDIS_URL": ""}) == Settings()
    assert "redis_url" not in Settings.from_env({"REDIS_URL": ""}).model_fields_set


def test_secrets_that_sign() -> None:
    given = {
        "WEBHOOK_SECRET": "new",
        "LONGHAND_WEBHOOK_PREVIOUS_SECRETS": "old,older",
        "LONGHAND_WEBHOOK_ACCOUNT_SECRETS": "us:ours,them:theirs,us:our-old",
    }
    read = Settings.from_env(given)
    assert read.signing_secrets("us") == ("ours", "our-old")
    assert read.signing_secrets("them") == ("theirs",)
    assert read.signing_secrets("nobody") == ("new", "old", "older")
    assert Settings().signing_secrets("us") == ()


def test_an_account_without_a_weight_has_one() -> None:
    read = Settings.from_env({"LONGHAND_ACCOUNT_WEIGHTS": "us=2.5, a=b=3"})
    assert (read.weight("us"), read.weight("a=b"), read.weight("them")) == ("2.5", "3", "1")
