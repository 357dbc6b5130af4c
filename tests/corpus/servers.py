"""Servers that lie, break off, stall and send somebody elsewhere; and what a job of theirs ends with."""

import functools
import gzip
import itertools
import socket
import struct
import time
import zlib

from tests.corpus.case import COMPLETED, TRUNCATED, Case, server_case
from tests.corpus.handmade import wav
from tests.hosts import Request, Script, chunked, redirect

SOUND = wav(bytes(2 * 16_000 * 6))
MIB = 2**20


def answers(status: int, body: bytes = b"", **headers: str | int) -> Script:
    """The whole answer, with a Content-Length unless another one is given."""
    return lambda request: request.answer(status, body, **headers)


def sends(data: bytes) -> Script:
    """These bytes, whatever they are, and the end of the connection."""
    return lambda request: request.connection.sendall(data)


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines]).encode() + b"\r\n\r\n"


def endless(request: Request) -> None:
    """A body without an end, as fast as it is taken."""
    request.connection.sendall(head() + SOUND)
    while True:
        request.connection.sendall(bytes(MIB))


def endless_chunks(request: Request) -> None:
    request.connection.sendall(head("Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(SOUND), SOUND))
    while True:
        request.connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def dripping(request: Request) -> None:
    """A byte now and then, always before patience ends."""
    request.connection.sendall(head(f"Content-Length: {len(SOUND)}"))
    for byte in SOUND:
        request.connection.sendall(bytes([byte]))
        time.sleep(0.3)


def dripping_head(request: Request) -> None:
    for number in itertools.count():
        request.connection.sendall(b"HTTP/1.1 200 OK\r\n" if not number else f"X-{number}: y\r\n".encode())
        time.sleep(0.3)


def stalled(request: Request) -> None:
    """Half of it, and then nothing, with the connection open."""
    request.connection.sendall(head(f"Content-Length: {len(SOUND)}") + SOUND[: len(SOUND) // 2])
    silent(request)


def silent(request: Request) -> None:
    """Nothing at all until the other side goes."""
    request.connection.settimeout(60)
    while request.connection.recv(4096):
        pass


def reset(request: Request) -> None:
    """Half of it, and a TCP reset."""
    request.connection.sendall(head(f"Content-Length: {len(SOUND)}") + SOUND[: len(SOUND) // 2])
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def round_and_round(request: Request) -> None:
    request.answer(302, Location=request.path)


def onwards(request: Request) -> None:
    """A chain of addresses that are all new."""
    request.answer(302, Location=request.path + "x")


def ranged(request: Request) -> None:
    """A part nobody asked for."""
    request.answer(206, SOUND[100:], Content_Range=f"bytes 100-{len(SOUND) - 1}/{len(SOUND)}")


@functools.cache
def bomb(bits: int) -> bytes:
    """A recording, and a GiB of zeros, in a MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    start = packer.compress(SOUND + bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + again * 1023


def exploding(encoding: str, bits: int) -> Script:
    return lambda request: request.answer(200, bomb(bits), Content_Encoding=encoding)


LENGTH = f"Content-Length: {len(SOUND)}"
BROKEN_OFF = "source_unreachable"
SERVERS: dict[str, tuple[Script, str]] = {
    "says more than it sends": (answers(200, SOUND, Content_Length=len(SOUND) + 9_000), BROKEN_OFF),
    "says less than it sends": (answers(200, SOUND, Content_Length=len(SOUND) // 2), TRUNCATED),
    "says that it is too large": (answers(200, SOUND, Content_Length=2**40), "source_too_large"),
    "says a length without end": (answers(200, SOUND, Content_Length="9" * 400), "source_too_large"),
    "says a length that is no number": (answers(200, SOUND, Content_Length="banana"), COMPLETED),
    "says a length below nothing": (answers(200, SOUND, Content_Length=-5), COMPLETED),
    "says two lengths": (sends(head(LENGTH, "Content-Length: 5") + SOUND), BROKEN_OFF),
    "says no length": (sends(head() + SOUND), COMPLETED),
    "calls it text": (answers(200, SOUND, Content_Type="text/plain"), COMPLETED),
    "calls it a picture": (answers(200, SOUND, Content_Type="image/png"), COMPLETED),
    "calls it a web page": (answers(200, SOUND, Content_Type="text/html"), "not_media"),
    "calls a page audio": (
        answers(200, b"<!DOCTYPE html><html>", Content_Type="audio/mpeg"),
        "not_media",
    ),
    "calls it nonsense": (answers(200, SOUND, Content_Type='";;;/\xff'), COMPLETED),
    "never ends": (endless, "source_too_large"),
    "never ends, in chunks": (endless_chunks, "source_too_large"),
    "drips": (dripping, "source_too_slow"),
    "drips its head": (dripping_head, BROKEN_OFF),
    "stalls in the middle": (stalled, BROKEN_OFF),
    "never answers": (silent, BROKEN_OFF),
    "resets in the middle": (reset, BROKEN_OFF),
    "closes at once": (sends(b""), BROKEN_OFF),
    "closes in its head": (sends(b"HTTP/1.1 200 OK\r\nContent-Le"), "source_empty"),
    "speaks SSH": (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), BROKEN_OFF),
    "speaks HTTP/0.9": (sends(SOUND), BROKEN_OFF),
    "speaks HTTP/2": (sends(b"\0\0\x12\x04" + bytes(32)), BROKEN_OFF),
    "has a status of four digits": (sends(head(status="2000 OK") + SOUND), BROKEN_OFF),
    "has a head of a megabyte": (sends(head("X: " + "y" * MIB) + SOUND), BROKEN_OFF),
    "has a thousand headers": (sends(head(*[f"X-{n}: y" for n in range(1000)]) + SOUND), BROKEN_OFF),
    "breaks its chunks": (sends(head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n"), BROKEN_OFF),
    "ends before its last chunk": (lambda request: chunked(request, SOUND, b""), BROKEN_OFF),
    "sends an unknown encoding": (answers(200, SOUND, Content_Encoding="rot13"), COMPLETED),
    "says gzip, and it is": (answers(200, gzip.compress(SOUND), Content_Encoding="gzip"), COMPLETED),
    "says gzip, and it is not": (answers(200, SOUND, Content_Encoding="gzip"), BROKEN_OFF),
    "sends half of its gzip": (answers(200, gzip.compress(SOUND)[:99], Content_Encoding="gzip"), TRUNCATED),
    "sends a bomb of gzip": (exploding("gzip", 31), "source_too_large"),
    "sends a bomb of deflate": (exploding("deflate", -15), "source_too_large"),
    "redirects to itself": (round_and_round, "source_refused"),
    "redirects for ever": (onwards, "source_refused"),
    "redirects nowhere": (answers(302), "source_refused"),
    "redirects to a file": (redirect(302, "file:///etc/passwd"), "unsupported_scheme"),
    "redirects to data": (redirect(307, "data:audio/wav;base64,UklGRg=="), "unsupported_scheme"),
    "redirects to gopher": (redirect(301, "gopher://127.0.0.1/x"), "unsupported_scheme"),
    "redirects to no address": (redirect(302, "http://[::1"), "source_refused"),
    "redirects to a broken port": (redirect(302, "http://127.0.0.1:99999/"), "invalid_input"),
    "sends an empty file": (answers(200), "source_empty"),
    "sends 206 unasked, all of it": (
        answers(206, SOUND, Content_Range=f"bytes 0-{len(SOUND) - 1}/{len(SOUND)}"),
        COMPLETED,
    ),
    "sends 206 unasked, another part": (ranged, BROKEN_OFF),
    "sends 206 without a range": (answers(206, SOUND), BROKEN_OFF),
    "sends 206 of a range backwards": (answers(206, SOUND, Content_Range="bytes 9-0/5"), BROKEN_OFF),
}
STATUSES = {
    **dict.fromkeys((300, 304, 400, 401, 402, 403, 404, 405, 410, 416, 418, 451), "source_refused"),
    **dict.fromkeys((429, 500, 502, 503, 504, 599), "source_unavailable"),
}


def cases() -> list[Case]:
    """The slow ones first: they wait most of the time."""
    slow = ("drips", "drips its head", "stalls in the middle", "never answers")
    found = [server_case(f"a server that {name}", *SERVERS[name]) for name in (*slow, *SERVERS)]
    found += [
        server_case(f"a server that answers {status}", answers(status, SOUND), code)
        for status, code in STATUSES.items()
    ]
    found.append(server_case("a server that answers 204", sends(head(status="204 No")), "source_empty"))
    return list({case.name: case for case in found}.values())
