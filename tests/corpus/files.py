"""Files that are no recording, or a strange one; each on an honest server."""

import functools
import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from tests.corpus.case import COMPLETED, TRUNCATED, Case, file_case
from tests.corpus.films import film, subtitles
from tests.corpus.handmade import crowded, flac, png, rf64, wav
from tests.corpus.recordings import whole

SECOND = bytes(2 * 16_000)
MIB = 2**20
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
ELSEWHERE = "file:///etc/hostname"


def zipped(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("talk.mp3", content)
    return made.getvalue()


def tarred(content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        info = tarfile.TarInfo("talk.mp3")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def box(kind: bytes, content: bytes = b"", size: int | None = None) -> bytes:
    """A box of an MP4 file, which says that it is of `size` bytes."""
    return (8 + len(content) if size is None else size).to_bytes(4) + kind + content


def id3(*frames: bytes, size: int | None = None) -> bytes:
    """The tag in front of an MP3, version 2.3."""
    content = b"".join(frames)
    told = len(content) if size is None else size
    return b"ID3\x03\0\0" + bytes(told >> shift & 0x7F for shift in (21, 14, 7, 0)) + content


def picture(content: bytes, mime: bytes = b"image/png") -> bytes:
    body = b"\0" + mime + b"\0\x03\0" + content
    return b"APIC" + struct.pack(">IH", len(body), 0) + body


def packed_frame(name: bytes, size: int) -> bytes:
    """A frame of a tag that is large when unpacked."""
    body = struct.pack(">I", size) + zlib.compress(bytes(size), 9)
    return name + struct.pack(">IH", len(body), 0x0080) + body


def packed_index(size: int) -> bytes:
    """A QuickTime file whose index is large when unpacked."""
    index = struct.pack(">I", size) + zlib.compress(bytes(size), 9)
    packed = box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", index))
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", packed)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values) * 4_000


NOT_MEDIA: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"To whom it may concern. " * 500,
    "one byte": lambda: b"x",
    "one zero": lambda: b"\0",
    "a megabyte of zeros": lambda: bytes(MIB),
    "a megabyte of 0xff": lambda: b"\xff" * MIB,
    "noise": lambda: random.Random(1).randbytes(MIB),
    "a zip archive": lambda: zipped(whole("mp3")),
    "a zip bomb": lambda: zipped(bytes(200 * MIB)),
    "a gzip file": lambda: gzip.compress(whole("mp3")),
    "a tar archive of a text": lambda: tarred(b"hello"),
    "a web page": lambda: b"<!doctype html><html><body>Sign in</body></html>",
    "a web page in UTF-16": lambda: "<!doctype html><html></html>".encode("utf-16"),
    "JSON": lambda: b'{"error": "not found"}',
    "an error of S3": lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a PDF": lambda: b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n%%EOF\n",
    "a program": lambda: b"\x7fELF\x02\x01\x01" + bytes(4000),
    "a PNG": lambda: png(8, 8),
    "a GIF": lambda: b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    "an SVG": lambda: (
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="%b"/></svg>' % ELSEWHERE.encode()
    ),
    "a playlist of HLS": lambda: HLS.format(ELSEWHERE).encode(),
    "a playlist of ffconcat": f"ffconcat version 1.0\nfile '{ELSEWHERE}'\n".encode,
    "a playlist of DASH": lambda: b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
    "a playlist of PLS": f"[playlist]\nFile1={ELSEWHERE}\nNumberOfEntries=1\n".encode,
    "a playlist of ASX": f'<asx version="3.0"><entry><ref href="{ELSEWHERE}"/></entry></asx>'.encode,
    "an SDP": lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 5004 RTP/AVP 0\n",
    "subtitles": lambda: b"1\n00:00:00,000 --> 00:00:02,000\nHello\n",
    "RIFF and nothing": lambda: b"RIFF",
    "a wave without sound": lambda: wav(b""),
    "a wave of no channels": lambda: wav(SECOND, channels=0),
    "a wave of 255 channels": lambda: wav(SECOND, channels=255),
    "a wave of 65,535 channels": lambda: wav(SECOND * 20, channels=65_535),
    "a wave of 0 Hz": lambda: wav(SECOND, rate=0),
    "a wave of 1 Hz": lambda: wav(SECOND, rate=1),
    "a wave of 999 Hz": lambda: wav(SECOND, rate=999),
    "a wave of 2 GHz": lambda: wav(SECOND, rate=2**31 - 1),
    "a wave of 0 bits": lambda: wav(SECOND, bits=0),
    "a wave of an unknown kind": lambda: wav(SECOND, kind=0x1234),
    "FLAC's name and nothing": lambda: b"fLaC",
    "FLAC of 1 Hz": lambda: flac(2, rate=1),
    "FLAC of 0 Hz": lambda: flac(2, rate=0),
    "FLAC without blocks": lambda: flac(0, rate=16_000, count=2**36 - 1),
    "Ogg's name and nothing": lambda: b"OggS" + bytes(60),
    "Matroska's name and nothing": lambda: b"\x1aE\xdf\xa3" + bytes(60),
    "an MP4 of its name": lambda: box(b"ftyp", b"isom\0\0\0\0isom"),
    "an MP4 with an empty index": lambda: box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov"),
    "an MP4 of boxes within boxes": lambda: functools.reduce(
        lambda inner, _: box(b"moov", inner), range(4000), b""
    ),
    "an MP4 of an endless box": lambda: (
        box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", b"\0" * 99, 2**32 - 1)
    ),
    "a QuickTime whose index is a bomb": lambda: packed_index(200 * MIB),
    "an ID3 tag and nothing": lambda: id3(picture(png(8, 8))),
    "an ID3 tag that never ends": lambda: id3(bytes(1000), size=2**28 - 1),
    "an MP4 of 80 million samples": lambda: crowded(whole("m4a, index first"), 80_000_000),
    "subtitles in Matroska": subtitles,
}
MEDIA: dict[str, tuple[Callable[[], bytes], str]] = {
    "one sample": (lambda: wav(bytes(2)), COMPLETED),
    "one sample and a half": (lambda: wav(bytes(3)), COMPLETED),
    "15 samples": (lambda: wav(bytes(30)), COMPLETED),
    "1 bit": (lambda: wav(SECOND, bits=1), COMPLETED),
    "1,000 Hz": (lambda: wav(SECOND, rate=1_000), COMPLETED),
    "192 kHz, 8 channels, float": (
        lambda: wav(bytes(192_000 * 32), rate=192_000, channels=8, bits=32, kind=3),
        COMPLETED,
    ),
    "384 kHz": (lambda: wav(bytes(768_000), rate=384_000), COMPLETED),
    "64 bits, float": (lambda: wav(bytes(64_000), bits=64, kind=3), COMPLETED),
    "no numbers": (lambda: wav(floats(float("nan"), float("inf"), -1e38), bits=32, kind=3), COMPLETED),
    "a length of 0": (lambda: wav(SECOND, riff_bytes=0, data_bytes=0), COMPLETED),
    "a length of 4 GiB": (lambda: wav(SECOND, riff_bytes=2**32 - 1, data_bytes=2**32 - 1), COMPLETED),
    "a length of 2 GiB": (lambda: wav(SECOND, riff_bytes=2**31, data_bytes=2**31), COMPLETED),
    "64-bit sizes": (
        lambda: rf64(SECOND, riff_bytes=len(SECOND) + 80, data_bytes=len(SECOND), count=16_000),
        COMPLETED,
    ),
    "64-bit sizes that lie": (
        lambda: rf64(SECOND, riff_bytes=2**63, data_bytes=2**62, count=2**60),
        COMPLETED,
    ),
    "FLAC that promises too much": (lambda: flac(30, rate=16_000, count=2**36 - 1), TRUNCATED),
    "more than is accepted": (lambda: flac(200, rate=16_000), "source_too_long"),
    "weeks in some kilobytes": (lambda: flac(50_000, rate=1_000), "source_too_long"),
    "pictures alone": (functools.partial(film, "a.mp4"), "no_audio_stream"),
    "pictures alone, in Matroska": (functools.partial(film, "a.mkv"), "no_audio_stream"),
    "pictures alone, in AVI": (functools.partial(film, "a.avi"), "no_audio_stream"),
    "a cover": (lambda: id3(picture(png(8, 8))) + whole("mp3 without a header"), COMPLETED),
    "a cover that is damaged": (lambda: id3(picture(b"x")) + whole("mp3 without a header"), COMPLETED),
    "a cover of gigabytes": (
        lambda: id3(picture(png(30_000, 30_000))) + whole("mp3 without a header"),
        COMPLETED,
    ),
    "a tag that is a bomb": (
        lambda: id3(packed_frame(b"TIT2", 200 * MIB)) + whole("mp3 without a header"),
        COMPLETED,
    ),
    "a tag after a tag": (lambda: id3() * 500 + whole("mp3 without a header"), COMPLETED),
    "zeros, then an mp3": (lambda: bytes(5_000) + whole("mp3 without a header"), COMPLETED),
    "an mp3, then a web page": (lambda: whole("mp3") + b"<html></html>" * 999, COMPLETED),
    "an mp3, then a zip archive": (lambda: whole("mp3") + zipped(whole("mp3")), COMPLETED),
    "mp3 of several rates": (lambda: whole("mp3 without a header") + whole("mp3, 8 kHz"), COMPLETED),
}


def cases() -> list[Case]:
    """The longest first."""
    found = [file_case(f"a recording with {name}", *made) for name, made in reversed(MEDIA.items())]
    found += [file_case(f"no recording: {name}", make, "not_media") for name, make in NOT_MEDIA.items()]
    return found
