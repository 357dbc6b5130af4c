"""Files that name other files or addresses: refused, and what they name is not opened or connected to."""

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest

from tasks.audio import AudioReader
from tasks.errors import LonghandError
from tests.hosts import connections, listening, port_of
from tests.media import encode

IN_OPEN = 0x20
Make = Callable[[str, str], bytes]


class Watched:
    """A recording that nobody may open, and the kernel's word (inotify) for whether somebody did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN) >= 0

    def opened(self) -> bool:
        """Whether it was, since the last look."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self._fd, 65536))
        return False

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(encode(tmp_path / "sentinel.mov", "pcm_s16le"))
    yield watched
    watched.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with listening() as server:
        yield server


def text(content: str) -> Make:
    """A file of text in which {path} and {url} stand for what must not be reached."""
    return lambda path, url: content.replace("{path}", path).replace("{url}", url).encode()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
KEY = '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n'
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" '
    'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\na=control:{url}\nm=audio 5004 RTP/AVP 0\n"
CPL = (
    '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
    "<Id>urn:uuid:1</Id><SegmentList><Segment><Path>{path}</Path></Segment></SegmentList></CompositionPlaylist>"
)
SCRIPTS: dict[str, Make] = {
    "HLS with a file": text(HLS.format("{path}")),
    "HLS with file:": text(HLS.format("file://{path}")),
    "HLS with an address": text(HLS.format("{url}")),
    "HLS after a BOM": text("\ufeff" + HLS.format("{url}")),
    "HLS after spaces": text("\r\n  " + HLS.format("{url}")),
    "HLS with concat:": text(HLS.format("concat:{url}|{path}")),
    "HLS with a key": text(KEY.format("{url}", "{path}")),
    "HLS of variants": text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n"),
    "ffconcat": text("ffconcat version 1.0\nfile '{path}'\n"),
    "ffconcat with an address": text("ffconcat version 1.0\nfile '{url}'\n"),
    "ffconcat after a BOM": text("\ufeffffconcat version 1.0\nfile '{path}'\n"),
    "DASH with a file": text(MPD.format("file://{path}")),
    "DASH with an address": text(MPD.format("{url}")),
    "SDP": text(SDP),
    "IMF": text(CPL),
    "ASX": text('<asx version="3.0"><entry><ref href="{url}"/><ref href="{path}"/></entry></asx>'),
    "PLS": text("[playlist]\nFile1={url}\nFile2={path}\nNumberOfEntries=2\n"),
    "a list of addresses": text("{url}\n{path}\n"),
    "QuickTime's link": text(
        '<?xml version="1.0"?><?quicktime type="application/x-quicktime-media-link"?><embed src="{url}"/>'
    ),
    "RealMedia's link": text("rtsp://{url}\n"),
    "RealText": text('<smil><body><audio src="{url}"/><audio src="file://{path}"/></body></smil>'),
    "a protocol's name": text("concat:{path}|{path}"),
    "a session of sap": text("SAP\n{url}\n"),
    "AviSynth": text('DirectShowSource("{path}")\n'),
    "Smooth Streaming": text('<SmoothStreamingMedia><c n="0" t="{url}"/></SmoothStreamingMedia>'),
    "subtitles of VobSub": text(
        "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 0\n"
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("suffix", ["", ".m3u8", ".ffconcat", ".mpd", ".wav"])
def test_a_script_is_not_followed(
    script: str, suffix: str, tmp_path: Path, sentinel: Watched, listener: socket.socket
) -> None:
    source = tmp_path / f"source{suffix}"
    url = f"http://127.0.0.1:{port_of(listener)}/a.wav"
    source.write_bytes(SCRIPTS[script](str(sentinel.path), url))
    assert refusal(source) == "not_media"
    assert not sentinel.opened()
    assert connections(listener) == 0


def refusal(source: Path) -> str:
    """The code that reading a file ends with, "" where there is sound in it."""
    try:
        return "" if list(AudioReader(source)) else "silent"
    except LonghandError as error:
        return error.code


@pytest.mark.parametrize("script", ["HLS with a file", "HLS with an address", "ffconcat"])
def test_the_scripts_are_followed_where_nothing_forbids_it(
    script: str, tmp_path: Path, sentinel: Watched, listener: socket.socket
) -> None:
    # So it is ours that refuses them, and the witnesses see what they are there to see.
    source = tmp_path / ("a.ffconcat" if script == "ffconcat" else "a.m3u8")
    url = f"http://127.0.0.1:{port_of(listener)}/a.wav"
    source.write_bytes(SCRIPTS[script](str(sentinel.path), url))
    allowed = {"extension_picky": "0", "allowed_extensions": "ALL", "safe": "0", "rw_timeout": "200000"}
    allowed["protocol_whitelist"] = "file,http,tcp"
    with contextlib.suppress(av.FFmpegError):
        av.open(str(source), container_options=allowed).close()
    assert sentinel.opened() or connections(listener)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kinds and contents of the boxes that a part of a QuickTime file is made of."""
    while data:
        size = int.from_bytes(data[:4])
        yield data[4:8], data[8:size]
        data = data[size:]


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def alias(path: bytes) -> bytes:
    """A data reference to another file, as Mac OS wrote it, with an absolute path."""
    record = bytes(10) + bytes(1 + 27) + bytes(12) + bytes(1 + 63) + bytes(16) + bytes(4) + bytes(16)
    named = struct.pack(">hH", 2, len(path)) + path + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    return box(b"dref", bytes(4) + (1).to_bytes(4) + box(b"alis", bytes(4) + record + named))


def with_reference(data: bytes, reference: bytes) -> bytes:
    """The same recording with its sound in another file: every reference replaced, and no samples."""
    made = b""
    for kind, content in boxes(data):
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            made += box(kind, with_reference(content, reference))
        elif kind == b"dref":
            made += reference
        elif kind != b"mdat":
            made += box(kind, content)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, sentinel: Watched) -> Path:
    """A QuickTime file whose sound is that of the sentinel."""
    path = tmp_path / "elsewhere.mov"
    path.write_bytes(with_reference(sentinel.path.read_bytes(), alias(bytes(sentinel.path))))
    assert sentinel.opened()
    return path


def test_a_reference_to_another_file_is_not_followed(elsewhere: Path, sentinel: Watched) -> None:
    assert refusal(elsewhere) == "not_media"
    assert not sentinel.opened()


def test_the_reference_is_followed_where_options_say_so(elsewhere: Path, sentinel: Watched) -> None:
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(elsewhere), container_options=options) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 0
    assert sentinel.opened()
