"""The sound of a recording that is in no chunk yet, as packets: decoded only around a cut, and copied."""

from bisect import bisect_left, bisect_right

import av
import numpy as np
from av.audio.frame import AudioFrame

from tasks.audio import HOLE_US, Samples, gap_warnings, trimmed, usable
from tasks.chunks import Span
from tasks.decoded import Cut, Decoded, decoded_cut
from tasks.demuxing import Packet, Recording
from tasks.errors import NotMedia
from tasks.packets import NotCopyable, Piece, digest, parameters, write_blob
from tasks.timeline import FrameClock, PacketClock
from tasks.windows import SAMPLES_PER_MS

# A decoder needs what comes before a chunk: mp3 up to two seconds for its bit reservoir at the lowest rates,
# Opus 80 ms; and some give out a packet's sound only when they see the next.
PRE_ROLL_US = 2_000_000
POST_ROLL_US = 200_000
# So many packets at the beginning are tried for one that can be decoded.
MAX_HEAD = 50
# One that is longer would be in more chunks than it is worth; so many bytes are too many for a chunk.
MAX_PACKET_US = 5_000_000
MAX_BYTES = 64 * 1024 * 1024
# The end of the recording that is decoded to know how long it is.
TAIL_US = 1_000_000
TRIED_MS = 1_000
# What the packets around a cut decode to may differ so much from what their stamps say, of their length.
MAX_DRIFT = 0.01


class Copied:
    """Packets from somewhat before `start_ms` on. Its methods raise NotCopyable for what has to be decoded.

    Time 0 is the first sample that a full decode gives: what only primes the decoder is before it.
    """

    def __init__(self, recording: Recording) -> None:
        self.start_ms = 0
        self._recording = recording
        self._codec = recording.stream.codec_context.codec.canonical_name
        tick = recording.stream.time_base
        self._tick = (tick.numerator * 1_000_000, tick.denominator) if tick else (0, 1)
        self._clock: PacketClock | None = None
        self._head: list[Packet] = []
        self._pieces: list[Piece] = []
        self._bytes = 0
        self._parameters: tuple[int, ...] | None = None
        # When sound goes on again, and after how long.
        self._holes: list[tuple[int, int]] = []
        self._finished_us = 0
        self._tried = False

    @property
    def end_ms(self) -> int:
        """The end of the last whole millisecond."""
        return self._end_us // 1000

    @property
    def _end_us(self) -> int:
        return self._finished_us or (self._clock.end_us if self._clock else 0)

    def add(self, packet: Packet) -> None:
        if self._clock:
            self._append(self._clock, packet)
            return
        frame = next(filter(usable, self._decode(packet)), None)
        if frame is None and len(self._head) == MAX_HEAD:
            raise NotCopyable("nothing at its beginning can be decoded")
        if frame is None:
            self._head.append(packet)
            return
        first = next(iter((*self._head, packet))).pts
        if frame.pts is None or first is None:
            raise NotCopyable("its first packets have no stamps")
        self._clock = PacketClock(-self._us(frame.pts), self._us(first) - self._us(frame.pts))
        try:
            for each in (*self._head, packet):
                self._append(self._clock, each)
        except NotCopyable:
            self._clock = None
            raise

    def finish(self) -> None:
        """No packet follows; the last ones are decoded to know the end of the recording."""
        clock = self._clock
        if clock is None:
            raise NotCopyable("nothing in it can be decoded")
        end_us = 0
        self._recording.stream.codec_context.flush_buffers()
        tail = [piece.packet for piece in self._around(clock.end_us - TAIL_US, clock.end_us)]
        for packet in (*tail, None):
            for frame in self._decode(packet):
                if frame.pts is not None and usable(frame):
                    end_us = self._us(frame.pts) + clock.shift_us + frame.samples * 1_000_000 // frame.rate
        # What the encoder added at the end is left out of a full decode.
        if not self.start_ms * 1000 < end_us <= clock.end_us + POST_ROLL_US:
            end_us = clock.end_us
        # Stamps are cut off to whole µs.
        self._finished_us = -(-(end_us - 2) // 1000) * 1000

    def between(self, start_ms: int, end_ms: int) -> Samples:
        """The samples of [start_ms, end_ms), decoded as a worker will."""
        pieces = self._around(start_ms * 1000, end_ms * 1000)
        if not pieces:
            return np.zeros((end_ms - start_ms) * SAMPLES_PER_MS, np.float32)
        data, origin_ms = write_blob(self._recording.stream, pieces)
        try:
            sound = trimmed(data, origin_ms, Span(start_ms, end_ms))
        except NotMedia as error:
            raise NotCopyable("its packets cannot be read once they are copied") from error
        length_us = sum(piece.end_us - piece.start_us for piece in pieces)
        if abs(sound.heard_us - length_us) > MAX_DRIFT * length_us + POST_ROLL_US:
            raise NotCopyable("its packets are not as long as they say")
        self._tried = True
        return sound.samples

    def take(self, end_ms: int) -> Cut:
        """Remove and return what is before `end_ms`."""
        span = Span(self.start_ms, end_ms)
        pieces = self._around(span.start_ms * 1000, end_ms * 1000)
        if any(piece.end_us > span.start_ms * 1000 and piece.start_us < end_ms * 1000 for piece in pieces):
            if not self._tried:
                # One without a cut; what a worker cannot do with its packets must be known here.
                self.between(span.start_ms, min(end_ms, span.start_ms + TRIED_MS))
            stream = self._recording.stream
            data, origin_ms = write_blob(stream, pieces)
            cut = Cut(span, data, digest(stream, pieces), "mka", origin_ms)
        else:
            length = (end_ms - span.start_ms) * SAMPLES_PER_MS
            cut = decoded_cut(span, np.zeros(length, np.float32))
        self.start_ms = end_ms
        del self._pieces[: self._first(end_ms * 1000 - PRE_ROLL_US)]
        self._bytes = sum(piece.packet.size for piece in self._pieces)
        return cut

    def warnings(self) -> list[str]:
        silent_us = sum(hole_us for _, hole_us in self._holes)
        return [*self._recording.warnings, *gap_warnings(self._recording, self.end_ms, silent_us)]

    def decoded(self) -> Decoded:
        """The same, decoded from here on."""
        self._recording.stream.codec_context.flush_buffers()
        clock, packets = FrameClock(HOLE_US), self._head
        if self._clock:
            # The frames' clock finds again what is missing between those that are decoded now.
            first_us = self._pieces[0].start_us if self._pieces else 0
            clock.shift_us = self._clock.shift_us
            clock.silent_us = sum(hole_us for start_us, hole_us in self._holes if start_us <= first_us)
            packets = [piece.packet for piece in self._pieces]
        made = Decoded(self._recording, clock, self.start_ms)
        for packet in packets:
            made.add(packet)
        return made

    def _append(self, clock: PacketClock, packet: Packet) -> None:
        stamp, length_us = packet.pts, self._us(packet.duration or 0)
        placed = clock.place(None if stamp is None else self._us(stamp), length_us)
        if placed is None or (self._pieces and placed[0] < self._pieces[-1].start_us):
            raise NotCopyable("its stamps do not tell the time")
        start_us, hole_us = placed
        if packet.is_discard and start_us >= 0:
            raise NotCopyable("an edit list leaves parts of it out")
        told = parameters(self._codec, packet)
        if told is None:
            return
        if self._parameters not in (None, told) or packet.has_sidedata("new_extradata"):
            raise NotCopyable("its rate, its channels or its codec's tables change")
        if length_us > MAX_PACKET_US or self._bytes > MAX_BYTES:
            raise NotCopyable("its packets are too large")
        self._parameters = told
        self._bytes += packet.size
        self._pieces.append(Piece(start_us, start_us + length_us, packet))
        if hole_us:
            self._holes.append((start_us, hole_us))

    def _decode(self, packet: Packet | None) -> list[AudioFrame]:
        try:
            return self._recording.stream.codec_context.decode(packet)
        except av.FFmpegError:
            return []

    def _around(self, start_us: int, end_us: int) -> list[Piece]:
        """The packets needed to decode this span."""
        last = bisect_left(self._pieces, end_us + POST_ROLL_US, key=_start)
        return self._pieces[self._first(start_us - PRE_ROLL_US) : last]

    def _first(self, time_us: int) -> int:
        """The number of the packet that is played at this time."""
        return max(0, bisect_right(self._pieces, time_us, key=_start) - 1)

    def _us(self, ticks: int) -> int:
        return ticks * self._tick[0] // self._tick[1]


def _start(piece: Piece) -> int:
    return piece.start_us
