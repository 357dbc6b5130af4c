"""`longhand webhooks`: what became of webhooks, dead letters, once more by hand, a test of a receiver."""

import sys
import time
from typing import Any

import click

from dispatcher.client import Client
from tasks.events import rfc3339
from tasks.outbox import STATES
from tasks.settings import Settings

# An attempt takes 10 s at most; the rest is for a deliver worker that is busy.
TEST_S = 60.0


def _client() -> Client:
    settings = Settings.from_env()
    return Client(settings.api_url, settings.api_key)


@click.group()
def webhooks() -> None:
    """See what became of webhooks, send one again, try a receiver."""


@webhooks.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state, such as dead.")
@click.option("--job", default="", help="Only those of this job.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
def list_(state: str | None, job: str, limit: int) -> None:
    """List your newest webhooks: when, id, kind, receiver, state, attempts."""
    for entry in _client().webhooks(state or "", job, limit):
        attempts = f"{entry['attempts']} attempt{'' if entry['attempts'] == 1 else 's'}"
        click.echo(
            f"{rfc3339(entry['created_ms'])[:19]}  {entry['id']}  {entry['kind']:<12}  {entry['receiver']}"
            f"  {entry['state']:<10}  {attempts}"
        )


@webhooks.command()
@click.argument("webhook_id")
def show(webhook_id: str) -> None:
    """Show a webhook's state and every attempt that was made."""
    _show(_client().webhook(webhook_id))


@webhooks.command()
@click.argument("webhook_id")
def redeliver(webhook_id: str) -> None:
    """Send a webhook again now: the same body under the same id."""
    click.echo(_client().redeliver(webhook_id)["state"])


@webhooks.command()
@click.argument("url")
def test(url: str) -> None:
    """Send one signed event to URL and show the answer; exits with 1 if it was no success."""
    client = _client()
    shown = client.test_webhook(url)
    until_s = time.monotonic() + TEST_S
    while not shown["attempts_made"] and time.monotonic() < until_s:
        time.sleep(0.2)
        shown = client.webhook(shown["id"])
    if not shown["attempts_made"]:
        click.echo(f"not sent within {TEST_S:.0f} s: is a deliver worker running?", err=True)
        sys.exit(1)
    _show(shown)
    if shown["state"] != "delivered":
        sys.exit(1)


def _show(shown: dict[str, Any]) -> None:
    about = f" of job {shown['job_id']}" if shown["job_id"] else ""
    click.echo(f"{shown['id']}: {shown['kind']}{about} to {shown['receiver']}, {shown['state']}")
    if shown["state"] == "waiting" and shown["due_ms"]:
        click.echo(f"  next attempt at {rfc3339(shown['due_ms'])}")
    for attempt in shown["attempts_made"]:
        answer = f"status {attempt['status']}" if attempt["status"] else attempt["error"]
        click.echo(f"  {rfc3339(attempt['at_ms'])}  {attempt['duration_ms']:>6} ms  {answer}")
