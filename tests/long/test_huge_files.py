"""Files of 10 GB and of more than RIFF can say, really sent: minutes of work, so not in `make test`."""

import random
import shutil
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.audio.stream import AudioStream

from dispatcher.local import Machine
from tests.corpus.case import COMPLETED, Case, server_case
from tests.corpus.running import Outcome, machine_at, peak_mib, processes, run_all
from tests.hosts import Request
from tests.media import add_film
from tests.positions import noise

MIB = 2**20
GIB = 2**30
LIMIT_S = 1_500
FILM_S = 180
# Pictures that cannot be decoded, and need not be.
A_SECOND, PICTURE = 15, random.Random(1).randbytes(4 * MIB)
# 192 kHz, eight channels of floats.
WAVE_RATE, WAVE_FRAME, WAVE_S = 192_000, 32, 710
# A process that cuts may have resident so much, of a file of any size.
PEAK_MIB = 256


class Chunked:
    """A file to write to, which is sent as it is written: its length is not known, nor can it be sought."""

    def __init__(self, request: Request) -> None:
        self._connection = request.connection
        self._connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def write(self, data: bytes) -> int:
        self._connection.sendall(b"%x\r\n" % len(data))
        self._connection.sendall(data)
        self._connection.sendall(b"\r\n")
        return len(data)

    def close(self) -> None:
        self._connection.sendall(b"0\r\n\r\n")


def film(target: Any) -> None:
    """Matroska with 10 GiB of pictures and three minutes of noise, as it is recorded live."""
    sound = noise(FILM_S, 16_000).tobytes()
    with av.open(target, "w", format="matroska", container_options={"live": "1"}) as container:
        pictures = add_film(container)
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        assert isinstance(stream, AudioStream)
        container.start_encoding()
        for second in range(FILM_S):
            part = sound[second * 32_000 : (second + 1) * 32_000]
            container.mux_one(packet(part, stream, second * 1_000, 1_000))
            for number in range(A_SECOND):
                start_ms = second * 1_000 + number * 1_000 // A_SECOND
                container.mux_one(packet(PICTURE, pictures, start_ms, 1_000 // A_SECOND))


def packet(data: bytes, stream: Any, start_ms: int, length_ms: int) -> Any:
    made = av.Packet(data)
    made.stream, made.time_base = stream, Fraction(1, 1_000)
    made.pts = made.dts = start_ms
    made.duration, made.is_keyframe = length_ms, True
    return made


def send_film(request: Request) -> None:
    target = Chunked(request)
    film(target)
    target.close()


def send_wave(request: Request) -> None:
    """RF64 of a little more than 4 GiB, most of it silence."""
    size = WAVE_S * WAVE_RATE * WAVE_FRAME
    form = struct.pack("<HHIIHH", 3, 8, WAVE_RATE, WAVE_RATE * WAVE_FRAME, WAVE_FRAME, 32)
    ds64 = struct.pack("<QQQI", size + 72, size, WAVE_S * WAVE_RATE, 0)
    head = b"RF64" + b"\xff" * 4 + b"WAVE" + b"ds64" + struct.pack("<I", len(ds64)) + ds64
    head += b"fmt " + struct.pack("<I", len(form)) + form + b"data" + b"\xff" * 4
    request.answer(200, Content_Length=len(head) + size)
    request.connection.sendall(head)
    second = bytes(WAVE_RATE * WAVE_FRAME)
    for _ in range(WAVE_S):
        request.connection.sendall(second)


@pytest.fixture
def machine(redis_url: str, tmp_path: Path) -> Iterator[Machine]:
    if shutil.disk_usage(tmp_path).free < 16 * GIB:
        pytest.skip("there are less than 16 GiB free for a download of 10")
    usual = {"max_source_bytes": 20 * GIB, "max_source_ms": 1_000 * LIMIT_S, "max_recording_ms": 1_000_000}
    made = machine_at(tmp_path, redis_url.removesuffix("0") + "6", **usual, ingest_memory_bytes=GIB)
    try:
        made.start(within_s=120)
        yield made
    finally:
        made.stop()


def ran(machine: Machine, case: Case) -> Outcome:
    """What came of it, which must be good, and cheap in memory and on the disk."""
    before = processes(machine)
    (came,) = run_all([case], machine.port, limit_s=LIMIT_S).values()
    assert (came.outcome, came.warnings) == (COMPLETED, ()), came
    assert processes(machine) == before, "no process was ended for what it took"
    peaks = {pid: peak_mib(pid) for pid, name in before.items() if name == "io"}
    print(f"{case.name} took {came.seconds:.0f} s; peaks of io in MiB: {peaks}")  # noqa: T201
    assert max(peaks.values()) < PEAK_MIB, peaks
    return came


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_film_of_ten_gigabytes_is_cut_in_bounded_memory(machine: Machine) -> None:
    assert FILM_S * A_SECOND * len(PICTURE) > 10 * GIB
    came = ran(machine, server_case("a film of 10 GiB without a length", send_film, COMPLETED))
    assert came.told["duration"] == pytest.approx(FILM_S, abs=0.1)


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_wave_file_of_more_than_four_gigabytes_is_read_to_its_end(machine: Machine) -> None:
    assert WAVE_S * WAVE_RATE * WAVE_FRAME > 4 * GIB
    came = ran(machine, server_case("RF64 of 4 GiB and more", send_wave, COMPLETED))
    assert came.told["duration"] == pytest.approx(WAVE_S, abs=0.1)
