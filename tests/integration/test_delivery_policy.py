"""A webhook goes where its job's endpoint may have connected to, and nowhere else."""

import pytest
from celery import Celery, current_app

from tasks import context, deliver
from tasks.app import create_app
from tasks.guard import origin
from tasks.job import NewJob
from tests.bench import Bench
from tests.conftest import Receiver


@pytest.fixture
def celery_app(bench: Bench) -> Celery:
    app = create_app(bench.settings)
    app.conf.longhand_concurrency = 8
    app.set_current()
    assert current_app.conf.longhand_concurrency == 8
    return app


def told(bench: Bench, app: Celery, receiver: Receiver, endpoint: str) -> list[str]:
    """What a drain makes of one event of a job of this endpoint: the errors of its attempts, if any."""
    settings = bench.settings.model_copy(
        update={"allow_private_addresses": False, "allowed_addresses": ("media=127.0.0.1",)}
    )
    url = f"{receiver.url}/hook"
    new = NewJob(endpoint, endpoint, "us", None, 60_000, 0, webhook_url=url, receiver=origin(url))
    assert bench.store.create(new)
    bench.redis.hset(f"lh:job:{endpoint}", "status", "running")
    bench.announce(endpoint)
    deliver.drain(context.build(settings, app), origin(url))
    return [attempt.error for attempt in bench.outbox.attempts(f"evt_{endpoint}_1_1")]


def test_an_endpoints_own_receivers_are_its_own(bench: Bench, celery_app: Celery, receiver: Receiver) -> None:
    (error,) = told(bench, celery_app, receiver, "other")
    assert "LONGHAND_ALLOWED_ADDRESSES" in error
    assert receiver.posts == []
    assert told(bench, celery_app, receiver, "media") == [""]
    assert len(receiver.posts) == 1


def test_one_drain_keeps_the_endpoints_of_a_receiver_apart(
    bench: Bench, celery_app: Celery, receiver: Receiver
) -> None:
    # The connection that was opened for the one must not serve the other.
    assert told(bench, celery_app, receiver, "media") == [""]
    bench.outbox.redeliver("evt_media_1_1", "us")
    (error,) = told(bench, celery_app, receiver, "other")
    assert error
    assert bench.outbox.state("evt_media_1_1") == "delivered"
    assert len(receiver.posts) == 2
