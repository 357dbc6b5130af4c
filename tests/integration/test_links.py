"""A transcript that is too large for a webhook: a link to it, for whoever has it and as long as it lasts."""

import json
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests

from dispatcher.client import segments_of
from tasks.links import link, verify
from tests.bench import Bench
from tests.conftest import Eventually, Receiver, Stack


def changed(url: str, **values: object) -> str:
    """The URL with other values in its query."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **values}
    return urlunsplit(parts._replace(query=urlencode(query)))


def test_a_large_transcript_is_replaced_by_a_link_to_it(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    job_id = stack.client.submit(stack.input(receiver, "large", 301))
    eventually(lambda: "completed" in receiver.statuses("large"), 60, "the last webhook")
    told = receiver.bodies("large")[-1]
    assert "transcription" not in told
    url = told["transcription_url"]
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 200
    body = answer.json()
    assert answer.text == json.dumps(body, sort_keys=True), "as the webhook would have been"
    segments = segments_of(stack.client.status(job_id)["output"])
    assert (len(segments), body.pop("transcription")) == (len(segments), segments)
    told.pop("transcription_url")
    body.pop("timestamp"), told.pop("timestamp")
    assert body == told

    later = int(dict(parse_qsl(urlsplit(url).query))["expires"]) + 1
    for wrong in (
        changed(url, expires=later),
        changed(url, expires=0),
        changed(url, signature="0" * 64),
        changed(url, signature="é"),
        url.replace(job_id, job_id.replace("-u1", "-u2")),
    ):
        refused = requests.get(wrong, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (403, "bad_link"), wrong
    for nonsense in (changed(url, expires="x"), changed(url, signature="a" * 300), url.partition("?")[0]):
        assert requests.get(nonsense, timeout=10).status_code == 400


def test_a_small_one_comes_whole(stack: Stack, receiver: Receiver, eventually: Eventually) -> None:
    stack.client.submit(stack.input(receiver, "small", 11))
    eventually(lambda: "completed" in receiver.statuses("small"), 60, "the last webhook")
    assert receiver.bodies("small")[-1]["transcription"]


def test_a_link_is_to_one_run_of_one_job_until_its_time(bench: Bench) -> None:
    bench.planned()
    job, key = bench.job(), bench.store.link_key()
    assert key == bench.store.link_key()
    assert len(key) == 32
    url = link("https://api.test/", job, 1_000, key)
    assert url.startswith("https://api.test/v2/longhand/transcription/j?expires=1000&signature=")
    signature = dict(parse_qsl(urlsplit(url).query))["signature"]
    assert verify(key, job, 1_000, signature, 999)
    assert not verify(key, job, 1_000, signature, 1_000)
    assert not verify(key, replace(job, run=2), 1_000, signature, 0)
    assert not verify(key, replace(job, id="k"), 1_000, signature, 0)
    assert not verify(bytes(32), job, 1_000, signature, 0)
