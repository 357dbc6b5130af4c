"""Six seconds of a tone in every container that we know how to write, whole and damaged in set ways."""

import functools
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.corpus.case import COMPLETED, TRUNCATED, Case, file_case
from tests.media import encode

Damage = Callable[[bytes], bytes]
FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "1000000"}


@dataclass(frozen=True, slots=True)
class Recording:
    """How a file is written, and what comes of it where that is not the rule for its damage."""

    file: str
    codec: str
    rate: int = 44_100
    layout: str = "stereo"
    pictures: bool = False
    bit_rate: int = 0
    options: dict[str, str] = field(default_factory=dict)
    but: dict[str, str] = field(default_factory=dict)


# What cannot be told from a shorter recording, since nothing in it says how long it is, or nothing is asked.
ENDLESS = {"a tenth": COMPLETED, "half": COMPLETED}
# The index is at the end.
NO_INDEX = {"a tenth": "not_media", "half": "not_media"}
INDEX_LAST = NO_INDEX | {"all but a byte": "not_media"}

RECORDINGS = {
    "mp3": Recording("a.mp3", "libmp3lame"),
    "mp3 without a header": Recording(
        "a.mp3", "libmp3lame", options={"write_xing": "0", "id3v2_version": "0"}, but=ENDLESS
    ),
    "mp3, 8 kHz": Recording("a.mp3", "libmp3lame", 8_000, "mono"),
    "m4a": Recording("a.m4a", "aac", but=NO_INDEX),
    "m4a, index first": Recording("a.m4a", "aac", options={"movflags": "faststart"}),
    "m4a in fragments": Recording("a.m4a", "aac", options=FRAGMENTS, but=ENDLESS),
    "alac": Recording("a.m4a", "alac", but=NO_INDEX),
    "mp4 film": Recording("a.mp4", "aac", pictures=True, but=NO_INDEX),
    "mov": Recording("a.mov", "pcm_s16le", but=INDEX_LAST),
    "3gp": Recording("a.3gp", "libopencore_amrnb", 8_000, "mono", but=INDEX_LAST),
    "mkv film": Recording("a.mkv", "libopus", 48_000, pictures=True),
    "webm": Recording("a.webm", "libopus", 48_000),
    "ogg opus": Recording("a.ogg", "libopus", 48_000),
    "ogg flac": Recording("a.ogg", "flac"),
    "flac": Recording("a.flac", "flac", but={"a tenth": "not_media"}),
    "wav": Recording("a.wav", "pcm_s16le", 16_000, "mono"),
    "wav, 8 bits": Recording("a.wav", "pcm_u8", 8_000, "mono", but={"a tenth": COMPLETED}),
    "wav, 24 bits": Recording("a.wav", "pcm_s24le"),
    "wav, float": Recording("a.wav", "pcm_f32le"),
    "wav, mu-law": Recording("a.wav", "pcm_mulaw", 8_000, "mono"),
    "wav, adpcm": Recording("a.wav", "adpcm_ima_wav"),
    "w64": Recording("a.w64", "pcm_s16le", but=ENDLESS),
    "aac": Recording("a.aac", "aac", but=ENDLESS),
    "wma": Recording("a.wma", "wmav2", bit_rate=64_000, but=ENDLESS),
    "amr": Recording("a.amr", "libopencore_amrnb", 8_000, "mono", but=ENDLESS),
    "avi film": Recording("a.avi", "libmp3lame", pictures=True, but={"a tenth": COMPLETED}),
    "ts": Recording("a.ts", "aac", but=ENDLESS),
    "ts film": Recording("a.ts", "mp2", pictures=True, but=ENDLESS),
    "mpg film": Recording("a.mpg", "mp2", pictures=True, but=ENDLESS),
    "flv": Recording("a.flv", "libmp3lame"),
    "aiff": Recording("a.aiff", "pcm_s16be"),
    "au": Recording("a.au", "pcm_s16be"),
    "caf": Recording("a.caf", "pcm_s16be", but=ENDLESS),
    "wavpack": Recording("a.wv", "wavpack"),
    "tta": Recording("a.tta", "tta", but={"a tenth": "not_media"}),
    "ac3": Recording("a.ac3", "ac3", 48_000, but=ENDLESS),
}


def cut(share: float) -> Damage:
    """What a transfer leaves that broke off."""
    return lambda data: data[: int(len(data) * share)]


def flipped(seed: int) -> Damage:
    """One bit in a thousand bytes, anywhere."""

    def damage(data: bytes) -> bytes:
        rng, out = random.Random(seed), bytearray(data)
        for _ in range(max(1, len(out) // 1000)):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        return bytes(out)

    return damage


def head_flipped(seed: int) -> Damage:
    """Twelve bits of the first 512 bytes, where sizes, rates and counts are."""

    def damage(data: bytes) -> bytes:
        rng, out = random.Random(seed), bytearray(data)
        for _ in range(12):
            out[rng.randrange(min(512, len(out)))] ^= 1 << rng.randrange(8)
        return bytes(out)

    return damage


def zeroed(data: bytes) -> bytes:
    """A fifth of it, from the middle on."""
    start, size = len(data) // 2, len(data) // 5
    return data[:start] + bytes(size) + data[start + size :]


# Each with what comes of it as a rule.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "whole": (lambda data: data, COMPLETED),
    "its first 12 bytes": (lambda data: data[:12], "not_media"),
    "a tenth": (cut(0.1), TRUNCATED),
    "half": (cut(0.5), TRUNCATED),
    "all but a byte": (lambda data: data[:-1], COMPLETED),
    "a span of zeros": (zeroed, COMPLETED),
    "twice": (lambda data: data + data, COMPLETED),
}
# What these hit depends on every byte before it, so on the encoder's version and processor, too.
ANY_END = (COMPLETED, "not_media", "no_audio_stream")
LUCK: dict[str, Damage] = {
    "flipped bits": flipped(1),
    "flipped bits again": flipped(2),
    "a damaged head": head_flipped(3),
    "another damaged head": head_flipped(4),
}


@functools.cache
def whole(name: str) -> bytes:
    """The bytes of a recording."""
    made = RECORDINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = encode(
            Path(folder) / made.file,
            made.codec,
            rate=made.rate,
            layout=made.layout,
            options=made.options,
            pictures=made.pictures,
            bit_rate=made.bit_rate,
        )
        return path.read_bytes()


def cases() -> list[Case]:
    """Every recording with every damage."""
    found = []
    for name, made in RECORDINGS.items():
        for damage, (change, rule) in DAMAGES.items():
            make = functools.partial(_made, change, name)
            found.append(file_case(f"{name}: {damage}", make, made.but.get(damage, rule)))
        for damage, change in LUCK.items():
            make = functools.partial(_made, change, name)
            found.append(file_case(f"{name}: {damage}", make, *ANY_END))
    return found


def _made(change: Damage, name: str) -> bytes:
    return change(whole(name))
