"""Recordings in the formats that users have, of any length, made without encoding all of it."""

from collections.abc import Iterable
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from tasks.audio import SAMPLE_RATE, Samples, to_int16


def write(
    path: Path,
    blocks: Iterable[Samples],
    codec: str,
    *,
    rate: int = SAMPLE_RATE,
    layout: str = "mono",
    bit_rate: int = 0,
) -> None:
    """Encode 16 kHz mono samples at another rate and layout; the file's ending names its container."""
    with av.open(path, "w", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        at = 0
        for block in blocks:
            pcm = to_int16(block)
            for start in range(0, len(pcm), SAMPLE_RATE):
                part = pcm[None, start : start + SAMPLE_RATE]
                frame = AudioFrame.from_ndarray(part, "s16", "mono")
                frame.rate, frame.pts = SAMPLE_RATE, at
                at += part.shape[1]
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def repeat(source: Path, target: Path, times: int) -> None:
    """The recording again and again: its packets are copied, with later times.

    Not for FLAC, whose packets carry their own number.
    """
    # An index at the front, as of recordings made for the web.
    options = {"movflags": "+faststart"} if target.suffix in (".m4a", ".mp4") else {}
    with av.open(target, "w", container_options=options | {"fflags": "+bitexact"}) as many:
        stream = None
        begun = 0
        for _ in range(times):
            with av.open(source) as one:
                audio = one.streams.audio[0]
                stream = stream or many.add_stream_from_template(audio)
                length = 0
                for packet in one.demux(audio):
                    # The last one flushes.
                    if packet.size:
                        length += packet.duration or 0
                        packet.stream = stream
                        packet.pts = begun + (packet.pts or 0)
                        packet.dts = packet.pts
                        many.mux(packet)
                begun += length
