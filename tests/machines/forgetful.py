"""A client of Redis whose answers are lost when the test says so."""

from typing import Any

from redis import Redis


class Forgetful:
    """A client of Redis that, when told so, loses the next answer to a script and asks again."""

    def __init__(self, client: Redis) -> None:
        self._client: Any = client
        self.lose = False

    def register_script(self, source: str) -> Any:
        script = self._client.register_script(source)

        def call(args: Any, client: Any = None) -> Any:
            if self.lose:
                script(args=args)
            self.lose = False
            return script(args=args, client=client)

        # What is put into a pipeline is read of the script, and never lost.
        call.script, call.sha = script.script, script.sha  # type: ignore[attr-defined]
        return call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def forgetful(client: Redis) -> Any:
    """The client in the place of which it stands."""
    return Forgetful(client)
