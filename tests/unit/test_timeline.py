from hypothesis import given
from hypothesis import strategies as st

from tasks.timeline import FARTHEST_BACK_US, LONGEST_HOLE_US, STEP_US, FrameClock, PacketClock

RATE = 16_000
SECOND = 1_000_000
TOLERANCE_US = 500_000


@given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.integers(1, 32_000), st.integers(-TOLERANCE_US, TOLERANCE_US)), max_size=50),
)
def test_time_is_the_count_of_samples_whatever_small_things_stamps_say(
    first_us: int, frames: list[tuple[int, int]]
) -> None:
    clock, count = FrameClock(TOLERANCE_US), 0
    assert clock.place(first_us, RATE, RATE) == 0
    for samples, off_us in frames:
        assert clock.place(first_us + SECOND + count * SECOND // RATE + off_us // 2, samples, RATE) == 0
        count += samples
    assert clock.start_us == clock.silent_us == 0
    assert abs(clock.heard_us - (RATE + count) * SECOND // RATE) <= 1


@given(st.integers(TOLERANCE_US + 1, LONGEST_HOLE_US))
def test_what_is_missing_is_silent_and_times_after_it_are_right(hole_us: int) -> None:
    clock = FrameClock(TOLERANCE_US)
    clock.place(7 * SECOND, RATE, RATE)
    assert clock.place(8 * SECOND + hole_us, RATE, RATE) == hole_us
    assert clock.place(9 * SECOND + hole_us, RATE, RATE) == 0
    assert (clock.silent_us, clock.heard_us) == (hole_us, 3 * SECOND)


@given(st.integers(LONGEST_HOLE_US + 1, 10**15) | st.integers(-(10**15), -FARTHEST_BACK_US - 1))
def test_a_stamp_that_jumps_too_far_begins_another_count(jump_us: int) -> None:
    clock = FrameClock(TOLERANCE_US)
    clock.place(0, RATE, RATE)
    assert clock.place(SECOND + jump_us, RATE, RATE) == 0
    assert clock.place(3 * SECOND + jump_us, RATE, RATE) == SECOND
    assert clock.heard_us == 3 * SECOND


def test_frames_without_stamps_follow_each_other() -> None:
    clock = FrameClock(TOLERANCE_US)
    assert [clock.place(None, RATE, RATE) for _ in range(3)] == [0, 0, 0]
    assert clock.place(40 * SECOND, RATE, RATE) == 0
    assert clock.place(42 * SECOND, RATE, RATE) == SECOND
    assert clock.heard_us == 5 * SECOND


def test_a_given_shift_places_the_first_frame_where_its_stamp_says() -> None:
    clock = FrameClock(TOLERANCE_US, shift_us=-2 * SECOND)
    assert clock.place(SECOND, RATE, RATE) == 0
    assert clock.start_us == -SECOND


@given(st.integers(-(10**12), 10**12), st.integers(-STEP_US, LONGEST_HOLE_US))
def test_a_packet_lies_where_its_stamp_says(shift_us: int, ahead_us: int) -> None:
    clock = PacketClock(shift_us, 0)
    placed = clock.place(ahead_us - shift_us, 20_000)
    assert placed == (ahead_us, ahead_us if ahead_us > STEP_US else 0)
    assert clock.end_us == ahead_us + 20_000


@given(st.none() | st.integers(LONGEST_HOLE_US + 1, 10**15) | st.integers(-(10**15), -STEP_US - 1))
def test_a_packet_whose_stamp_tells_no_time_has_no_place(stamp_us: int | None) -> None:
    clock = PacketClock(0, 0)
    assert clock.place(stamp_us, 20_000) is None
    assert clock.end_us == 0
