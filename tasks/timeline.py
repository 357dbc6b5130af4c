"""Where packets and frames lie on a recording's time line. Stamps are µs, counts of samples ns."""

from dataclasses import dataclass

# What is missing for longer is no hole but a stamp that is wrong, and so is one that lies so far back.
LONGEST_HOLE_US = 600_000_000
FARTHEST_BACK_US = 10_000_000
# Packets overlap by so much where their lengths are rounded, and have holes where more is missing.
STEP_US = 100_000


@dataclass(slots=True)
class FrameClock:
    """Counts the samples of frames that follow each other, and finds what is missing between them.

    Time is the length of what was decoded, so that it cannot drift; stamps only tell of holes, longer than
    `tolerance_us`. A stamp that jumps too far, or back, is the first of another count of stamps.
    """

    tolerance_us: int
    # Added to a stamp, it gives the time; None: the first frame is at time 0.
    shift_us: int | None = None
    # When the first frame starts, and how much silence was found.
    start_us: int | None = None
    silent_us: int = 0
    _time_ns: int = 0

    @property
    def heard_us(self) -> int:
        """The length of all frames, without the holes."""
        return self._time_ns // 1000 - (self.start_us or 0) - self.silent_us

    def place(self, stamp_us: int | None, samples: int, rate: int) -> int:
        """Let a frame follow; gives how long it is silent before it, µs."""
        if stamp_us is not None and self.shift_us is None:
            self.shift_us = self._time_ns // 1000 - stamp_us
        hole_us = 0
        if self.start_us is None:
            self.start_us = (stamp_us or 0) + (self.shift_us or 0)
            self._time_ns = self.start_us * 1000
        elif stamp_us is not None and self.shift_us is not None:
            ahead_us = stamp_us + self.shift_us - self._time_ns // 1000
            if not -FARTHEST_BACK_US <= ahead_us <= LONGEST_HOLE_US:
                self.shift_us -= ahead_us
            elif ahead_us > self.tolerance_us:
                hole_us = ahead_us
        self.silent_us += hole_us
        self._time_ns += hole_us * 1000 + samples * 1_000_000_000 // rate
        return hole_us


@dataclass(slots=True)
class PacketClock:
    """Places packets by their stamps; None where a stamp tells no time: missing, back, or too far ahead."""

    # Added to a stamp, it gives the time.
    shift_us: int
    end_us: int

    def place(self, stamp_us: int | None, length_us: int) -> tuple[int, int] | None:
        """When the packet that follows starts, and how much is missing before it, µs."""
        if stamp_us is None:
            return None
        time_us = stamp_us + self.shift_us
        ahead_us = time_us - self.end_us
        if not -STEP_US <= ahead_us <= LONGEST_HOLE_US:
            return None
        self.end_us = time_us + length_us
        return time_us, ahead_us if ahead_us > STEP_US else 0
