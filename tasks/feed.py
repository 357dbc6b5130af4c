"""The bytes of a recording as FFmpeg reads them: from front to back, unless its format needs to jump."""

from typing import BinaryIO

# Two packets of an MPEG transport stream, and the first box of an MP4.
HEAD_BYTES = 512
TS_PACKET = 188
# The longest page of an Ogg file, bytes, and the flag of the last one.
OGG_PAGE = 65_307
OGG_END = 0x04
# FFmpeg reads these well without jumping; where it may jump, it looks at their end before anything else.
SEQUENTIAL = (b"OggS", b"fLaC", b"\x1aE\xdf\xa3", b"#!AMR", b"FLV", b"\0\0\x01\xba")
RIFF = (b"RIFF", b"RF64")
ISO_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot")
# How FFmpeg asks for the size, and the answer that there is none (POSIX: function not implemented).
WHENCE_END = 2
NO_SIZE = -38
# Damaged files send it to such places, bytes; this is how it is told that there is none (invalid argument).
FARTHEST = 2**42
NO_PLACE = -22
# It leaves the length that an mp3 states, and with it what to leave out at the end, alone only in a file with
# a size, which is not larger than the mp3 says; it does nothing else with the size. This is of one byte.
ONE_BYTE = 0


class Feed:
    """Hands a file's bytes to FFmpeg, and remembers what it needs to know afterwards.

    The file may still be growing: a read then waits, and what it raises is raised again by `check`. FFmpeg is
    not told the size of an MP4, which may be a request of its own, unless it is `sized`.
    """

    def __init__(self, file: BinaryIO, *, sized: bool = False) -> None:
        file.seek(0)
        self.head = _read_all(file, HEAD_BYTES)
        file.seek(0)
        self._mpeg = is_mpeg_audio(self.head)
        self.sequential = self._mpeg or is_sequential(self.head)
        # Bytes read, where it is sequential.
        self.count = 0
        self._file = file
        self._tail = b""
        self._error: BaseException | None = None
        self.sized = sized or self.head[4:8] not in ISO_BOXES
        self._ogg = self.head.startswith(b"OggS")

    def read(self, size: int) -> bytes:
        if self._error:
            # PyAV prints an error that it has not told of yet when there is another one.
            return b""
        try:
            data = self._file.read(size)
        except BaseException as error:
            # FFmpeg may take it for the file's end.
            self._error = error
            raise
        self.count += len(data)
        if self._ogg:
            self._tail = (self._tail + data)[-OGG_PAGE:]
        return data

    def seekable(self) -> bool:
        return self._mpeg or not self.sequential

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == WHENCE_END and not self.sized:
            return NO_SIZE
        if whence == 0 and not 0 <= offset <= FARTHEST:
            return NO_PLACE
        if whence == WHENCE_END and self._mpeg:
            return ONE_BYTE
        try:
            return self._file.seek(offset, whence)
        except BaseException as error:
            self._error = error
            raise

    def check(self) -> None:
        """Raise what the file raised."""
        if self._error:
            raise self._error

    @property
    def riff_bytes(self) -> int:
        """The size that a RIFF file says it has; 0 for other files."""
        return int.from_bytes(self.head[4:8], "little") + 8 if self.head[:4] == b"RIFF" else 0

    @property
    def misses_end(self) -> bool:
        """Whether the last page of an Ogg file lacks the mark of its stream's end (RFC 3533, section 6)."""
        flags = self._tail.rfind(b"OggS") + 5
        return self._ogg and not (flags < len(self._tail) and self._tail[flags] & OGG_END)


def is_mpeg_audio(head: bytes) -> bool:
    """Whether it is MPEG audio or AAC in ADTS, which begin with a tag or a frame."""
    return head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def is_sequential(head: bytes) -> bool:
    """Whether a file that begins so is read well from front to back."""
    riff = head[:4] in RIFF and head[8:12] == b"WAVE"
    transport = len(head) > TS_PACKET and head[0] == head[TS_PACKET] == 0x47
    return head.startswith(SEQUENTIAL) or riff or transport


def _read_all(file: BinaryIO, size: int) -> bytes:
    """So many bytes, unless the file ends before; a read of one that grows may give fewer."""
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
