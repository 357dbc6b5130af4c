"""`longhand keys`: the operator's tool for API keys; it talks to Redis itself."""

import re
import sys

import click

from tasks.errors import InvalidInput
from tasks.events import rfc3339
from tasks.keys import Keys
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _keys() -> Keys:
    settings = Settings.from_env()
    client = connect(settings.state_url)
    Store(client, settings).check_server()
    return Keys(client)


@click.group()
def keys() -> None:
    """Make, list and revoke API keys, in the Redis of REDIS_URL.

    A job belongs to the name of the key that submitted it; a name may have several keys.
    """


@keys.command()
@click.argument("name")
def create(name: str) -> None:
    """Make a key for NAME and print it: it is kept nowhere, and cannot be shown again."""
    if not NAME.fullmatch(name):
        raise InvalidInput("a name has up to 64 letters, digits, and . _ -")
    click.echo(_keys().create(name))


@keys.command("list")
def list_() -> None:
    """List all keys: when made, id, name, when last used (to about a minute), and whether it is revoked."""
    for key in _keys().all():
        state = f"revoked {rfc3339(key.revoked_ms)[:19]}" if key.revoked_ms is not None else "valid"
        used = "used " + rfc3339(key.used_ms)[:16] if key.used_ms is not None else "never used"
        click.echo(f"{rfc3339(key.created_ms)[:19]}  {key.id}  {key.name}  {used}  {state}")


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """End the key of this id, as `list` shows it: within 5 s it opens nothing any more."""
    if not re.fullmatch("[0-9a-f]{12}", key_id) or not _keys().revoke(key_id):
        click.echo("there is no valid key of this id", err=True)
        sys.exit(1)
    click.echo("revoked")
