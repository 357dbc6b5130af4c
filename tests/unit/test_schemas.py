import math
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from dispatcher.options import OPTION_NAMES
from dispatcher.schemas import (
    Contact,
    Limits,
    parse_contact,
    parse_input,
    parse_policy,
)
from tasks.errors import InvalidInput, LonghandError
from tasks.job import Options, Request
from tasks.settings import Settings

SETTINGS = Settings(model="multi")
OPEN = Settings(model="multi", allow_private_addresses=True)
URL = "https://example.com/talk.mp3"
WEEK_MS = 7 * 24 * 3600 * 1000

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
known_names = st.sampled_from(
    [*OPTION_NAMES, "url", "blob", "model", "type", "engine", "streaming", "transcribe_args", "recording_id"]
)
nearly_inputs = st.dictionaries(known_names | st.text(max_size=8), any_json, max_size=5).flatmap(
    lambda arguments: (
        st.fixed_dictionaries({"url": st.just(URL), "transcribe_args": st.just(arguments)})
        | st.just(arguments)
    )
)


def parsed(**job_input: Any) -> Request:
    return parse_input(job_input, SETTINGS).request


def options(**arguments: Any) -> Options:
    return parsed(url=URL, transcribe_args=arguments).options


def refusal(job_input: object, settings: Settings = SETTINGS) -> LonghandError:
    with pytest.raises(LonghandError) as caught:
        parse_input(job_input, settings)
    return caught.value


def test_the_least_input() -> None:
    assert parsed(url=URL) == Request(url=URL, model="multi")


def test_the_ivrit_clients_input() -> None:
    arguments = {
        "language": "he",
        "diarize": False,
        "diarization_args": {},
        "output_options": {"word_timestamps": False, "extra_data": False},
        "verbose": True,
        "url": URL,
    }
    request = parsed(
        type="url",
        model="ivrit-ai/whisper-large-v3-ct2",
        engine="stable-whisper",
        streaming=True,
        transcribe_args=arguments,
    )
    assert request == Request(
        url=URL,
        model="ivrit-ai/whisper-large-v3-ct2",
        options=Options(language="he", word_timestamps=False),
        extra_data=False,
    )


@pytest.mark.parametrize("place", ["input", "transcribe_args"])
def test_fields_that_may_be_in_either_place(place: str) -> None:
    mine = {"url": URL, "chunk_seconds": 60, "webhook_url": "https://example.com/hook", "recording_id": "r"}
    mine["audio_stream"] = 0
    job_input = mine if place == "input" else {"transcribe_args": mine}
    found = parse_input(job_input, SETTINGS)
    assert found.request == Request(url=URL, model="multi", chunk_ms=60_000, audio_stream=0)
    assert parse_contact(job_input, SETTINGS) == Contact("https://example.com/hook", "r")
    assert not {"url", "webhook_url", "recording_id", "chunk_seconds"} & set(asdict(found.request.options))


def test_a_blob_is_kept_out_of_the_request() -> None:
    found = parse_input({"type": "blob", "transcribe_args": {"blob": "UklGRg=="}}, SETTINGS)
    assert found.blobs == ("UklGRg==",)
    assert found.request == Request(url="", model="multi")


def test_streaming_off() -> None:
    assert not parsed(url=URL, streaming=False).streaming


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("language", "fr"),
        ("task", "translate"),
        ("multilingual", True),
        ("word_timestamps", False),
        ("beam_size", 1),
        ("patience", 2.0),
        ("length_penalty", 0.5),
        ("repetition_penalty", 1.1),
        ("no_repeat_ngram_size", 3),
        ("best_of", 2),
        ("temperature", 0.2),
        ("compression_ratio_threshold", None),
        ("log_prob_threshold", -0.5),
        ("no_speech_threshold", 0.1),
        ("initial_prompt", "שלום"),
        ("hotwords", "Longhand"),
        ("suppress_blank", False),
        ("suppress_tokens", [1, 2]),
        ("prepend_punctuations", "("),
        ("append_punctuations", ")"),
        ("max_new_tokens", 100),
        ("vad_filter", True),
        ("vad_parameters", {"min_silence_duration_ms": 500}),
        ("chunk_length", 10),
        ("batch_size", 2),
        ("language_detection_threshold", 0.8),
        ("language_detection_segments", 1),
    ],
)
def test_every_option_is_honoured(name: str, value: Any) -> None:
    assert options(**{name: value}) == Options(**{name: value})


def test_the_operator_limits_what_a_job_may_ask_for_as_the_length_of_its_chunks() -> None:
    narrow = Settings(model="multi", min_chunk_ms=20_500, max_chunk_ms=60_000)
    for seconds in (20.5, 60):
        request = parse_input({"url": URL, "chunk_seconds": seconds}, narrow).request
        assert request.chunk_ms == round(seconds * 1000)
    for seconds in (20.4, 60.1):
        error = refusal({"url": URL, "chunk_seconds": seconds}, narrow)
        assert str(error) == f"input.chunk_seconds must be from 20.5 to 60, not {seconds}"
    longer = Settings(model="multi", max_chunk_ms=3_600_000)
    assert parse_input({"url": URL, "chunk_seconds": 3_600}, longer).request.chunk_ms == 3_600_000


def test_no_option_is_left_out_of_the_test_above() -> None:
    marks = getattr(test_every_option_is_honoured, "pytestmark")  # noqa: B009  mypy knows no such attribute
    assert {case[0] for case in marks[0].args[1]} == {field.name for field in fields(Options)}


def test_word_timestamps_among_the_arguments_win_over_the_output_options() -> None:
    assert options(word_timestamps=True, output_options={"word_timestamps": False}).word_timestamps


@pytest.mark.parametrize(
    ("job_input", "code", "says"),
    [
        (None, "invalid_input", "`input` must be an object"),
        ({}, "invalid_input", "`input` must be an object"),
        ([URL], "invalid_input", "`input` must be an object"),
        (URL, "invalid_input", "`input` must be an object"),
        ({"url": 5}, "invalid_input", "input.url"),
        ({"url": URL, "transcribe_args": "x"}, "invalid_input", "input.transcribe_args"),
        ({"url": URL, "streaming": "yes"}, "invalid_input", "input.streaming"),
        ({"url": URL, "type": "file"}, "invalid_input", "input.type"),
        ({"url": URL, "engine": "vosk"}, "invalid_input", "input.engine"),
        ({"url": URL, "model": "m" * 201}, "invalid_input", "input.model"),
        ({"url": URL, "chunk_seconds": 9}, "invalid_input", "input.chunk_seconds"),
        ({"url": URL, "chunk_seconds": 1801}, "invalid_input", "input.chunk_seconds"),
        ({"url": URL, "chunk_seconds": 1e308}, "invalid_input", "input.chunk_seconds"),
        (
            {"url": URL, "transcribe_args": {"chunk_seconds": 0}},
            "invalid_input",
            "transcribe_args.chunk_seconds must be from 10 to 1800",
        ),
        ({"url": URL, "audio_stream": -1}, "invalid_input", "input.audio_stream"),
        ({"url": URL, "audio_stream": "1"}, "invalid_input", "input.audio_stream"),
        ({"url": URL, "chunk_seconds": math.nan}, "invalid_input", "input"),
        ({"url": URL, "recording_id": 5}, "invalid_input", "input.recording_id"),
        ({"url": URL, "blob": "UklGRg=="}, "invalid_input", "both `url` and `blob`"),
        (
            {"url": URL, "transcribe_args": {"beam_size": "many"}},
            "invalid_input",
            "transcribe_args.beam_size",
        ),
        (
            {"url": URL, "transcribe_args": {"vad_filter": False}},
            "unsupported_option",
            "transcribe_args.vad_filter",
        ),
        ({"url": URL, "transcribe_args": {"language": "xx"}}, "invalid_input", "'xx'"),
        ({"url": URL, "transcribe_args": {"task": "sing"}}, "invalid_input", "transcribe_args.task"),
        ({"url": "https://user:pw@example.com/"}, "invalid_input", "user name or password"),
        ({"url": "https:///a.mp3"}, "invalid_input", "no host"),
        ({"model": "m"}, "no_source", "`url`"),
        ({"url": ""}, "no_source", "`url`"),
        ({"type": "blob", "url": URL}, "no_source", "no `blob`"),
        ({"url": URL, "webook_url": "https://example.com"}, "unknown_option", "input.webook_url"),
        ({"url": URL, "transcribe_args": {"beams": 5}}, "unknown_option", "transcribe_args.beams"),
        (
            {"url": URL, "transcribe_args": {"output_options": {"speakers": True}}},
            "unknown_option",
            "transcribe_args.output_options.speakers",
        ),
        ({"url": URL, "transcribe_args": {"diarize": True}}, "unsupported_option", "diarize"),
        (
            {"url": URL, "transcribe_args": {"diarization_args": {"num_speakers": 2}}},
            "unsupported_option",
            "diarization_args",
        ),
        ({"url": []}, "no_source", "url"),
        ({"blob": ["UklGRg==", ""]}, "no_source", "empty"),
        ({"url": [URL] * 1001}, "invalid_input", "1000"),
        ({"url": "ftp://example.com/a.mp3"}, "unsupported_scheme", "https://"),
        ({"url": "file:///etc/passwd"}, "unsupported_scheme", "https://"),
        ({"url": "talk.mp3"}, "unsupported_scheme", "https://"),
        ({"url": URL, "webhook_url": "ftp://example.com/"}, "unsupported_scheme", "https://"),
        (
            {"url": URL, "model": "somebody/model"},
            "model_not_allowed",
            "ivrit-ai/yi-whisper-large-v3-turbo-ct2",
        ),
        ({"url": "https://example.com:6379/"}, "address_refused", "LONGHAND_ALLOW_PRIVATE_ADDRESSES"),
        ({"url": URL, "webhook_url": "https://example.com:22/"}, "address_refused", "port 22"),
        (
            {"url": URL, "model": "tiny.en", "transcribe_args": {"language": "he"}},
            "model_language",
            "tiny.en",
        ),
        (
            {"url": URL, "model": "tiny.en", "transcribe_args": {"task": "translate"}},
            "model_language",
            "tiny.en",
        ),
        (
            {"url": URL, "model": "tiny.en", "transcribe_args": {"multilingual": True}},
            "model_language",
            "tiny.en",
        ),
    ],
)
def test_refusals(job_input: object, code: str, says: str) -> None:
    error = refusal(job_input)
    assert (error.code, says in str(error)) == (code, True), str(error)


def test_an_unknown_option_is_answered_with_those_that_are_known() -> None:
    message = str(refusal({"url": URL, "transcribe_args": {"beams": 5}}))
    for name in (*OPTION_NAMES, "diarize", "output_options", "webhook_url"):
        assert name in message
    assert "chunk_seconds" in str(refusal({"url": URL, "chunks": 5}))
    nested = str(refusal({"url": URL, "transcribe_args": {"output_options": {"speakers": True}}}))
    # What is accepted there, not one level up.
    assert nested.endswith("accepted are: word_timestamps, extra_data")


def test_the_servers_default_model_is_held_against_the_language() -> None:
    job_input = {"url": URL, "transcribe_args": {"language": "he"}}
    assert refusal(job_input, Settings(model="tiny.en")).code == "model_language"


def test_private_addresses_may_be_allowed() -> None:
    assert parse_input({"url": "http://127.0.0.1:9/a.wav"}, OPEN).request.url == "http://127.0.0.1:9/a.wav"
    assert parse_contact({"webhook_url": "http://127.0.0.1:9/"}, OPEN).webhook_url == "http://127.0.0.1:9/"


@pytest.mark.parametrize(
    ("job_input", "contact"),
    [
        ("no object", Contact()),
        ({"recording_id": 7, "webhook_url": ["x"]}, Contact()),
        ({"webhook_url": "ftp://example.com/", "recording_id": "r"}, Contact("", "r")),
        ({"webhook_url": "http://127.0.0.1:9/", "recording_id": "r"}, Contact("", "r")),
        ({"webhook_url": URL, "transcribe_args": {"webhook_url": "https://example.com/2"}}, Contact(URL)),
        ({"webhook_url": "", "transcribe_args": {"webhook_url": URL}}, Contact(URL)),
        ({"unknown": 1, "webhook_url": URL, "recording_id": "הקלטה"}, Contact(URL, "הקלטה")),
    ],
)
def test_a_contact_is_read_from_whatever_there_is(job_input: object, contact: Contact) -> None:
    assert parse_contact(job_input, SETTINGS) == contact


@effort(deadline=None)
@given(any_json | nearly_inputs)
@example({"url": URL, "recording_id": "\ud800"})
@example({"url": URL, "\ud800": 1})
@example({"url": URL, "transcribe_args": {"\ud800": 1}})
@example({"url": URL, "transcribe_args": {"language": "\ud800"}})
@example({"url": URL, "transcribe_args": {"initial_prompt": "\ud800"}})
@example({"url": URL, "transcribe_args": {"patience": math.nan}})
@example({"url": URL, "transcribe_args": {"vad_parameters": {"threshold": math.inf}}})
def test_whatever_is_sent_is_accepted_or_refused_with_a_code(job_input: object) -> None:
    contact = parse_contact(job_input, SETTINGS)
    # Both end up in Redis and in JSON, as UTF-8.
    (contact.webhook_url + contact.recording_id).encode()
    try:
        request = parse_input(job_input, SETTINGS).request
    except LonghandError as error:
        # It goes to Redis and to clients too.
        f"{error.code}: {error}".encode()
    else:
        assert Request.from_json(request.to_json()) == request
        request.to_json().encode()


@pytest.mark.parametrize(
    ("policy", "limits"),
    [
        (None, Limits(SETTINGS.ttl_ms, SETTINGS.execution_timeout_ms)),
        ("nonsense", Limits(SETTINGS.ttl_ms, SETTINGS.execution_timeout_ms)),
        ({"ttl": "soon", "executionTimeout": True}, Limits(SETTINGS.ttl_ms, SETTINGS.execution_timeout_ms)),
        ({"ttl": 9_999, "executionTimeout": 4_999}, Limits(10_000, 5_000)),
        ({"ttl": 10_000, "executionTimeout": 5_000}, Limits(10_000, 5_000)),
        ({"ttl": 60_000.9, "executionTimeout": 60_000.9}, Limits(60_000, 60_000)),
        ({"ttl": WEEK_MS + 1, "executionTimeout": WEEK_MS + 1}, Limits(WEEK_MS, WEEK_MS)),
        ({"ttl": math.inf, "executionTimeout": -math.inf}, Limits(86_400_000, 0)),
        ({"ttl": 10**400, "executionTimeout": -(10**400)}, Limits(WEEK_MS, 5_000)),
        ({"ttl": math.nan, "executionTimeout": math.nan}, Limits(86_400_000, 0)),
        ({"lowPriority": True}, Limits(86_400_000, 0, low_priority=True)),
        ({"lowPriority": "true"}, Limits(86_400_000, 0)),
    ],
)
def test_a_policy_is_brought_into_the_platforms_ranges(policy: object, limits: Limits) -> None:
    assert parse_policy(policy, SETTINGS) == limits


@given(any_json)
@example(math.nan)
def test_any_policy_gives_limits(value: object) -> None:
    limits = parse_policy({"ttl": value, "executionTimeout": value, "lowPriority": value}, SETTINGS)
    assert 10_000 <= limits.ttl_ms <= WEEK_MS
    assert limits.execution_timeout_ms == 0 or 5_000 <= limits.execution_timeout_ms <= WEEK_MS


@pytest.mark.parametrize("place", ["input", "transcribe_args"])
def test_the_dialect_is_asked_for(place: str) -> None:
    asked: dict[str, object] = {"url": "https://a.test/x"}
    inner = asked if place == "input" else asked.setdefault("transcribe_args", {})
    assert isinstance(inner, dict)
    assert parse_input(asked, Settings()).request.dialect == "v2"
    inner["stream_format"] = "v1"
    request = parse_input(asked, Settings()).request
    assert (request.dialect, request.poison) == ("v1", True)
    inner["stream_format"] = "v3"
    with pytest.raises(InvalidInput, match="stream_format"):
        parse_input(asked, Settings())


def test_newer_clients_are_poisoned_by_a_setting_only() -> None:
    for poison in (False, True):
        parsed = parse_input({"url": "https://a.test/x"}, Settings(stream_poison=poison))
        assert parsed.request.poison is poison


def test_a_recording_id_has_a_length_that_can_be_told_in_every_webhook() -> None:
    asked = {"url": URL, "webhook_url": "https://example.com/hook", "recording_id": "a" * 501}
    with pytest.raises(InvalidInput, match="recording_id"):
        parse_input(asked, SETTINGS)
    assert parse_contact(asked, SETTINGS) == Contact("https://example.com/hook", "")
    assert parse_contact({**asked, "recording_id": "a" * 500}, SETTINGS).recording_id == "a" * 500
