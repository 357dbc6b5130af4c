"""Files made byte by byte: what no encoder writes, and what is huge when decoded."""

import struct
import zlib

BLOCK = 65_535


def wav(
    samples: bytes,
    *,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    riff_bytes: int | None = None,
    data_bytes: int | None = None,
    name: bytes = b"RIFF",
) -> bytes:
    """A wave file whose header says what it is told to; sizes are the true ones unless given."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * block & 0xFFFF_FFFF, block & 0xFFFF, bits)
    size = len(samples) if data_bytes is None else data_bytes
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    whole = len(body) + len(samples) if riff_bytes is None else riff_bytes
    return name + struct.pack("<I", whole) + body + samples


def rf64(samples: bytes, *, riff_bytes: int, data_bytes: int, count: int) -> bytes:
    """A wave file with 64-bit sizes (EBU TECH 3306), whatever they say."""
    sizes = b"ds64" + struct.pack("<IQQQI", 28, riff_bytes, data_bytes, count, 0)
    plain = wav(samples, name=b"RF64", riff_bytes=0xFFFF_FFFF, data_bytes=0xFFFF_FFFF)
    return plain[:12] + sizes + plain[12:]


def flac(blocks: int, *, rate: int, count: int | None = None) -> bytes:
    """Silence in FLAC of 16-bit mono, 65,535 samples in 15 bytes or so; `count`: samples that it promises."""
    promised = blocks * BLOCK if count is None else count
    info = struct.pack(">HH", BLOCK, BLOCK) + bytes(6)
    info += (rate << 44 | 15 << 36 | promised).to_bytes(8) + bytes(16)
    return b"fLaC\x80\x00\x00\x22" + info + b"".join(map(_silent_block, range(blocks)))


def _silent_block(number: int) -> bytes:
    # The block's size follows in 16 bits; the rate is that of the file's head; one channel of 16 bits.
    head = b"\xff\xf8\x70\x08" + chr(number).encode("utf-8", "surrogatepass") + struct.pack(">H", BLOCK - 1)
    frame = head + bytes([_crc(head, 0x07, 8)]) + b"\0" + bytes(2)
    return frame + _crc(frame, 0x8005, 16).to_bytes(2)


def crowded(data: bytes, count: int) -> bytes:
    """An MP4 file whose first track says that it has `count` samples, of a byte each, in its first chunk."""
    made = bytearray(data)
    for kind, offset, words in (
        (b"stsz", 8, (1, count)),
        (b"stsc", 16, (count,)),
        (b"stts", 12, (count,)),
    ):
        at = made.index(kind) + offset
        made[at : at + 4 * len(words)] = struct.pack(f">{len(words)}I", *words)
    return bytes(made)


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    value, top = 0, 1 << (bits - 1)
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & ((1 << bits) - 1)
    return value


def png(width: int, height: int) -> bytes:
    """A picture that says how large it is, with no more than a row of its pixels, 8 bytes each."""
    head = struct.pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    rows = zlib.compress(bytes(1 + 8 * width))
    parts = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(kind, content) for kind, content in parts)


def _png_part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + zlib.crc32(kind + content).to_bytes(4)
