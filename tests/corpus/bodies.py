"""Requests that are wrong, absurd or hostile, and what the API or the job says to each."""

import json
import random
from dataclasses import replace
from typing import Any

from tests.corpus.case import COMPLETED, Case, body_case, input_case
from tests.corpus.servers import SOUND

REFUSED = "400 invalid_input"
INVALID = "invalid_input"
DEEP = 100_000
LONG = "x" * 2**20
MIB = 2**20
ANY_JOB = (COMPLETED, INVALID, "unknown_option", "no_source", "unsupported_option", "unsupported_scheme")

BODIES: dict[str, tuple[bytes | str, str]] = {
    "nothing": ("", REFUSED),
    "null": ("null", REFUSED),
    "a number": ("5", REFUSED),
    "a list": ("[]", REFUSED),
    "an object without input": ("{}", REFUSED),
    "half of an object": ('{"input": {"url": ', REFUSED),
    "two objects": ('{"input": {}}{"input": {}}', REFUSED),
    "single quotes": ("{'input': {}}", REFUSED),
    "a form": ("input=x&url=y", REFUSED),
    "lists without end": ("[" * DEEP, REFUSED),
    "lists within lists": ('{"input": ' + "[" * DEEP + "]" * DEEP + "}", REFUSED),
    "objects within objects": ('{"input": ' + '{"a":' * DEEP + "1" + "}" * DEEP + "}", REFUSED),
    "lists that can just be read": ('{"input": {"model": ' + "[" * 400 + "]" * 400 + "}}", INVALID),
    "a number of 10,000 digits": ('{"input": {"chunk_seconds": ' + "9" * 10_000 + "}}", REFUSED),
    "a number of 4,000 digits": ('{"input": {"url": "x", "chunk_seconds": ' + "9" * 4_000 + "}}", INVALID),
    "a number beyond any": ('{"input": {"url": "x", "chunk_seconds": 1e999}}', INVALID),
    "not a number": ('{"input": {"url": "x", "chunk_seconds": NaN}}', INVALID),
    "minus infinity": ('{"input": {"url": "x", "transcribe_args": {"beam_size": -Infinity}}}', INVALID),
    "half a character": ('{"input": {"url": "\\ud800"}}', INVALID),
    "half a character in a name": ('{"input": {"\\udfff": 1}}', INVALID),
    "bytes that are no UTF-8": (b'{"input": {"url": "\xff\xfe\xfd"}}', REFUSED),
    "UTF-8 that is too long": (b'{"input": {"url": "\xc0\xaf"}}', REFUSED),
    "UTF-16": ('{"input": {"url": "x"}}'.encode("utf-16"), "unsupported_scheme"),
    "noise": (random.Random(1).randbytes(9_999), REFUSED),
    "a text of a megabyte": (json.dumps({"input": LONG}), INVALID),
    "a URL of a megabyte": (json.dumps({"input": {"url": f"http://127.0.0.1/{LONG}"}}), INVALID),
    "a name of a megabyte": (json.dumps({"input": {LONG: 1}}), "unknown_option"),
    "a thousand unknown names": (json.dumps({"input": {f"n{n}": n for n in range(1000)}}), "unknown_option"),
    "17 MiB": (b'{"input": {"blob": "' + b"A" * 17 * MIB + b'"}}', "400 body_too_large"),
    "too many recordings": (json.dumps({"input": {"url": ["x"] * 1001}}), INVALID),
    "a recording that is empty": (json.dumps({"input": {"url": ["x", ""]}}), "no_source"),
    "a list of no recordings": (json.dumps({"input": {"url": []}}), "no_source"),
    "a policy that is none": ('{"input": {}, "policy": [1]}', INVALID),
    "a callback that is none": ('{"input": {}, "webhook": 5}', REFUSED),
    "a callback to a file": ('{"input": {}, "webhook": "file:///etc/passwd"}', "400 unsupported_scheme"),
}
# Beside a good recording; each of the wrong type, out of range, or not known.
WRONG: dict[str, tuple[object, ...]] = {
    "type": (1, "ftp", [], {}),
    "engine": (1, "whisperx", None),
    "model": (1, [], None, "x" * 201),
    "streaming": ("yes", 1, None, []),
    "detach": ("yes", 1, None),
    "webhook_url": (1, [], {}, "http://[", "x\0y", LONG),
    "recording_id": (1, [], "x" * 501),
    "chunk_seconds": (-1, 0, 9.99, 1801, 10**9, "10", True, []),
    "stream_format": (1, "v3", []),
    "transcribe_args": (1, "x", [], None),
}
WRONG_ARGUMENTS: dict[str, tuple[object, ...]] = {
    "beam_size": (0, -1, 10**9, 10**30, 1.5, "x", None, [], {}),
    "patience": (0, -1, 1e9, "x"),
    "length_penalty": (1e9, -1e9, "x"),
    "repetition_penalty": (0, 1e9),
    "no_repeat_ngram_size": (-1, 10**9),
    "temperature": (-1, 2.1, [], [0.0, 2.1], [0.5] * 11, {}, "hot"),
    "best_of": (0, 21, "x", None),
    "compression_ratio_threshold": (-1, 1e9, "x"),
    "log_prob_threshold": (0.1, -1e9, "x"),
    "no_speech_threshold": (-0.1, 1.1, "x"),
    "chunk_length": (0, 31, 1.5, "x"),
    "batch_size": (0, -1, 10**30, "x"),
    "language_detection_threshold": (-0.1, 1.1, None, "x"),
    "language_detection_segments": (0, 21, 1.5, None),
    "log_progress": ("x", 5),
    "max_new_tokens": (0, -1, 10**9),
    "language": ("xx", "english please", 5, [], "en\0", LONG),
    "task": ("summarize", 5, None),
    "multilingual": ("x", 5, []),
    "word_timestamps": ("x", 5, []),
    "initial_prompt": (5, [1.5], {}),
    "hotwords": (5, [], {}),
    "suppress_tokens": ("x", [1.5], [[]], 5),
    "suppress_blank": ("x", 5),
    "vad_parameters": (5, [], {"threshold": "x"}, {"min_speech_duration_ms": []}, {"threshold": {}}),
    "output_options": (5, [], {"word_timestamps": "x"}),
    "verbose": ("x", 5),
    "diarization_args": (5, []),
}
INPUTS: dict[str, tuple[object, str]] = {
    "both url and blob": ({"url": "URL", "blob": "UklGRg=="}, INVALID),
    "a blob named as url": ({"url": "URL", "type": "blob"}, "no_source"),
    "a blob of padding": ({"blob": "===="}, INVALID),
    "a blob of half a letter": ({"blob": "A"}, INVALID),
    "a blob of text": ({"blob": "aGVsbG8gaGVsbG8="}, "not_media"),
    "vad_parameters of nonsense": (
        {"url": "URL", "transcribe_args": {"vad_parameters": {"nonsense": 1}}},
        "unknown_option",
    ),
    "an unknown argument": ({"url": "URL", "transcribe_args": {"beam_sise": 5}}, "unknown_option"),
    "arguments within arguments": (
        {"url": "URL", "transcribe_args": {"transcribe_args": {}}},
        "unknown_option",
    ),
    "diarization": ({"url": "URL", "transcribe_args": {"diarize": True}}, "unsupported_option"),
    "no VAD": ({"url": "URL", "transcribe_args": {"vad_filter": False}}, "unsupported_option"),
    "an option of stable-ts": ({"url": "URL", "transcribe_args": {"regroup": True}}, "unsupported_option"),
    "an upload that is not there": ({"url": "longhand-upload:" + "0" * 32}, "upload_not_found"),
    "an upload named by a path": ({"url": "longhand-upload:../../etc/passwd"}, INVALID),
    "a blob of another job": ({"url": "longhand-blob:x/source"}, "unsupported_scheme"),
    "a file": ({"url": "file:///etc/passwd"}, "unsupported_scheme"),
    "a protocol of FFmpeg": ({"url": "concat:/etc/passwd|/etc/hosts"}, "unsupported_scheme"),
    "a name without a scheme": ({"url": "../../etc/passwd"}, INVALID),
    "a URL with NUL": ({"url": "http://127.0.0.1:1\0/"}, INVALID),
    "a URL with a line's end": ({"url": "http://127.0.0.1:1\r\n/"}, INVALID),
    "a URL without a host": ({"url": "http:///a.mp3"}, INVALID),
    "a URL with a port too high": ({"url": "http://127.0.0.1:99999/"}, INVALID),
    "a model that is a path": ({"url": "URL", "model": "../../etc/passwd"}, "model_not_allowed"),
    "a recording's name that is a path": ({"url": "URL", "recording_id": "../../../x\0"}, COMPLETED),
    "nothing to complain about": ({"url": "URL"}, COMPLETED),
}
NOT_FOUND = "404 job_not_found"
# Written as they are, with what a client's library would tidy up.
# None stands for what was left out, in some places; the others are told to the client.
WRONG_ENDS = (INVALID,)
PATHS: dict[str, tuple[str, str, str]] = {
    "a job's id with a colon": ("GET", "status/x:results", NOT_FOUND),
    "a job's id with a NUL": ("GET", "status/x%00", NOT_FOUND),
    "a job's id with a line's end": ("GET", "status/x%0a", NOT_FOUND),
    "a job's id that is a path": ("GET", "status/..%2f..%2fetc%2fpasswd", "404"),
    "a job's id of dots": ("GET", "status/..", NOT_FOUND),
    "a job's id that is a pattern": ("GET", "status/*", NOT_FOUND),
    "a job's id of 10,000 letters": ("GET", "status/" + "x" * 10_000, NOT_FOUND),
    "a job's id that is no UTF-8": ("GET", "status/%ff%fe", NOT_FOUND),
    "a stream that is not there": ("GET", "stream/x%00?wait=1", NOT_FOUND),
    "a cursor that is none": ("GET", "stream/x?cursor=-1", REFUSED),
    "a wait without end": ("GET", f"stream/x?wait={10**30}", NOT_FOUND),
    "a wait of words": ("GET", "status-sync/x?wait=soon", REFUSED),
    "a retry of nothing": ("POST", "retry/x", NOT_FOUND),
    "a cancellation of nothing": ("POST", "cancel/%2e%2e", NOT_FOUND),
    "an operation that is not there": ("POST", "explode", "404"),
    "a method that is wrong": ("GET", "run", "405"),
    "a method that is not there": ("BREW", "run", "400"),
}


def cases() -> list[Case]:
    """All requests."""
    found = [body_case(f"a body of {name}", *made) for name, made in BODIES.items()]
    found += [_good(f"an input of {name}", *made) for name, made in INPUTS.items()]
    for name, values in WRONG.items():
        for number, value in enumerate(values):
            found.append(_good(f"{name} that is wrong ({number})", {"url": "URL", name: value}, *WRONG_ENDS))
    for name, values in WRONG_ARGUMENTS.items():
        for number, value in enumerate(values):
            arguments = {"url": "URL", "transcribe_args": {name: value}}
            found.append(_good(f"{name} that is wrong ({number})", arguments, *WRONG_ENDS))
    found += [_twice(), *map(_fuzzed, range(40))]
    for name, (method, path, outcome) in PATHS.items():
        found.append(replace(body_case(name, "", outcome), method=method, path=path))
    return found


def _good(name: str, job_input: object, *outcomes: str) -> Case:
    case = input_case(name, job_input, *outcomes)
    return replace(case, serve=lambda request: request.answer(200, SOUND))


def _twice() -> Case:
    """Of two fields of one name the last counts, as everywhere in Python."""
    body = b'{"input": {"url": "file:///etc/passwd"}, "input": {"url": "x", "url": "gopher://x"}}'
    return body_case("fields that come twice", body, "unsupported_scheme")


def _fuzzed(seed: int) -> Case:
    """A valid body with bytes changed, left out and doubled; but for its URL, which must lead here."""
    rng = random.Random(seed)
    valid: dict[str, Any] = {
        "chunk_seconds": 30,
        "streaming": True,
        "transcribe_args": {"beam_size": 5, "language": "he", "vad_parameters": {"threshold": 0.5}},
    }
    body = bytearray(json.dumps({"input": valid}).encode())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 3)] = rng.choice((b"", b"\0", b"\xff", b"[", b'"', b"1e9", b"\\u"))
    return body_case(f"a body fuzzed with seed {seed}", bytes(body), REFUSED, *ANY_JOB)
