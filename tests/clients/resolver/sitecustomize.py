"""In a client's own interpreter: the platform's address, which ivrit has fixed, leads to the stack."""

import os
import socket
from typing import Any

_PLATFORM = "api.runpod.ai"
_look_up = socket.getaddrinfo


def _elsewhere(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    if host in (_PLATFORM, _PLATFORM.encode()):
        host, port = "127.0.0.1", int(os.environ["PLATFORM_PORT"])
    return _look_up(host, port, *args, **kwargs)


socket.getaddrinfo = _elsewhere
