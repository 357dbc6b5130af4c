"""Compressed packets on a recording's time line: which can be copied, and the blob they are copied into."""

import hashlib
import struct
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import av
from av.audio.stream import AudioStream

from tasks.demuxing import Packet, Recording

# Codecs and containers, by FFmpeg's names, whose packets were held against a full decode of the same file:
# docs/decisions/0011. All others are decoded at ingest.
CODECS = frozenset(
    {"mp3", "mp2", "aac", "opus", "vorbis", "flac", "alac", "ac3", "eac3"}
    | {"pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le"}
)
FORMATS = frozenset(
    {"mp3", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "ogg", "flac", "wav", "aac", "mpegts", "ac3", "eac3"}
)
# Of AAC, likewise. The frames of others refer to what is further back: Main, LTP, xHE-AAC.
AAC_PROFILES = frozenset({None, "LC", "HE-AAC", "HE-AACv2"})
# Above it, 16 kHz FLAC is much the smaller blob.
MAX_BIT_RATE = 1_200_000


class NotCopyable(Exception):
    """Packets that cannot be copied so that each lies where a full decode has it."""


class Piece(NamedTuple):
    """A packet and the time of its first and last moment. One that only primes the decoder is before 0."""

    start_us: int
    end_us: int
    packet: Packet


def copyable(recording: Recording) -> bool:
    """Whether packets of this codec, in this container, may be copied."""
    stream = recording.stream
    codec = stream.codec_context.codec.canonical_name
    return (
        codec in CODECS
        and (codec != "aac" or stream.codec_context.profile in AAC_PROFILES)
        and recording.format in FORMATS
        and (stream.bit_rate or 0) <= MAX_BIT_RATE
        and bool(stream.time_base)
    )


def parameters(codec: str, packet: Packet) -> tuple[int, ...] | None:
    """What a packet's own header says of the rate and the channels; () where it says nothing.

    None: it is no packet of the codec. Sources: ISO 11172-3 2.4.1.3, ISO 13818-7 6.2, RFC 9639 9.1.
    """
    header = HEADERS.get(codec)
    return header(bytes(packet)[:4]) if header else ()


def _of_mpeg(data: bytes) -> tuple[int, ...] | None:
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    return data[1] & 0x1E, data[2] & 0x0C, data[3] >> 6 == 3


def _of_adts(data: bytes) -> tuple[int, ...] | None:
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:
        # What an MP4 holds is without a header.
        return ()
    return data[1] & 0x08, data[2] & 0xFD, data[3] & 0xC0


def _of_flac(data: bytes) -> tuple[int, ...] | None:
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xFC != 0xF8:
        return None
    channels = data[3] >> 4
    # Ways to write two channels may take turns.
    return data[2] & 0x0F, 1 if channels > 7 else channels


HEADERS = {"mp3": _of_mpeg, "mp2": _of_mpeg, "aac": _of_adts, "flac": _of_flac}


def write_blob(stream: AudioStream, pieces: Sequence[Piece]) -> tuple[bytes, int]:
    """Copy packets into Matroska of one track; gives its bytes, and the time of its stamp 0, ms.

    Equal packets give equal bytes. Raises NotCopyable where Matroska does not take them.
    """
    origin_ms = pieces[0].start_us // 1000
    target = BytesIO()
    try:
        with av.open(target, "w", format="matroska", container_options={"fflags": "+bitexact"}) as container:
            copy = container.add_stream_from_template(stream)
            for piece in pieces:
                packet = av.Packet(bytes(piece.packet))
                packet.stream = copy
                # Without a time base they are in ms, as Matroska's are.
                packet.pts = packet.dts = (piece.start_us + 500) // 1000 - origin_ms
                packet.duration = (piece.end_us - piece.start_us) // 1000
                packet.is_keyframe = True
                container.mux_one(packet)
    except (av.FFmpegError, ValueError) as error:
        raise NotCopyable(str(error)) from error
    return target.getvalue(), origin_ms


def digest(stream: AudioStream, pieces: Sequence[Piece]) -> str:
    """16 hex digits that tell a chunk's packets, and when each is played: SHA-256 of them."""
    context = stream.codec_context
    told = f"{context.codec.canonical_name} {context.rate} {context.channels}"
    made = hashlib.sha256(told.encode())
    made.update(context.extradata or b"")
    for start_us, _, packet in pieces:
        made.update(struct.pack("<qq", start_us, packet.size))
        made.update(packet)
    return made.hexdigest()[:16]
