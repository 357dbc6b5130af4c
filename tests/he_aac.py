"""HE-AAC by hand, since no encoder here writes it: AAC-LC at 24 kHz that is said to be 48 kHz by SBR.

Sources: ISO 14496-3 1.6.2 (AudioSpecificConfig), 4.4.2.7 and 4.4.2.8 (what an AAC frame may be filled with).
"""

from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream

from tests.positions import write_noise

CORE_RATE = 24_000
# Audio object types.
MAIN, LC, SBR, PS = 1, 2, 5, 29
# Indexes of 24 kHz and 48 kHz.
CORE_INDEX, FULL_INDEX = 6, 3
SBR_BYTES = 30
# Frames from one SBR header to the next: half a second.
HEADER_EVERY = 12
SBR_DATA, WITHOUT_HEADER, WITH_HEADER = "1101", "0", "1"
# Start at index 5, stop at index 9, all else as usual. Zeros after it are a quiet frame of one envelope.
SBR_HEADER = "0" + f"{5:04b}{9:04b}" + "000" + "00" + "00"
FILL, FILL_LONG, END = "110", "1111", "111"


def _packed(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _config(said: int, channels: int) -> bytes:
    """What the container says: LC alone, which leaves SBR to be found, or SBR, or SBR with PS."""
    core = f"{CORE_INDEX:04b}{channels:04b}"
    extension = "" if said in (MAIN, LC) else f"{FULL_INDEX:04b}{LC:05b}"
    return _packed(f"{said:05b}{core}{extension}000")


def _with_sbr(frame: bytes, *, header: bool) -> bytes:
    bits = "".join(f"{byte:08b}" for byte in frame).rstrip("0")
    assert bits.endswith(END)
    sbr = SBR_DATA + (WITH_HEADER + SBR_HEADER if header else WITHOUT_HEADER)
    filled = FILL + FILL_LONG + f"{SBR_BYTES - 14:08b}" + sbr.ljust(8 * SBR_BYTES, "0")
    return _packed(bits.removesuffix(END) + filled + END)


def write_he_aac(
    path: Path,
    said: int,
    *,
    layout: str = "stereo",
    options: dict[str, str] | None = None,
    sbr: bool = True,
    full_ticks: bool = False,
) -> Path:
    """Write the noise of write_noise(); with `full_ticks` the file counts time in 48,000ths of a second."""
    plain = write_noise(path.with_name("lc.m4a"), "aac", rate=CORE_RATE, layout=layout)
    scale = 2 if full_ticks else 1
    tick = Fraction(1, CORE_RATE * scale)
    with av.open(plain) as source, av.open(path, "w", container_options=options or {}) as target:
        stream = source.streams.audio[0]
        copy = target.add_stream_from_template(stream)
        assert isinstance(copy, AudioStream)
        copy.codec_context.extradata = _config(said, stream.channels)
        copy.codec_context.sample_rate = copy.rate * scale
        copy.time_base = tick
        for number, packet in enumerate(source.demux(stream)):
            if packet.pts is None or packet.dts is None:
                continue
            frame = bytes(packet)
            made = av.Packet(_with_sbr(frame, header=number % HEADER_EVERY == 0) if sbr else frame)
            made.pts, made.dts = packet.pts * scale, packet.dts * scale
            made.duration, made.time_base = (packet.duration or 0) * scale, tick
            made.stream = copy
            target.mux_one(made)
    return path
