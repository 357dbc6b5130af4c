"""A job that says which of a film's audio streams is to be transcribed, through the stack."""

from dispatcher.client import segments_of
from tests.conftest import Eventually, Receiver, Stack
from tests.positions import write_noise


def test_the_audio_stream_that_a_job_asks_for_is_transcribed(
    stack: Stack, receiver: Receiver, eventually: Eventually
) -> None:
    write_noise(
        receiver.folder / "film.mkv", "aac", rate=48_000, streams=3, default=1, pictures=True, seconds=25
    )

    def ended(**fields: object) -> object:
        """The segments of a job with these fields, or the code of its failure."""
        job_id = stack.client.submit({"url": f"{receiver.url}/film.mkv", "chunk_seconds": 10, **fields})
        shown = eventually(lambda: stack.ended(job_id), 60, "the end")
        return segments_of(shown["output"]) if shown["status"] == "COMPLETED" else shown["code"]

    usual = ended()
    first, second, third = (ended(audio_stream=number) for number in range(3))
    # The engine's text is of the samples alone.
    assert usual == second
    assert len({str(segments) for segments in (first, second, third)}) == 3
    assert ended(audio_stream=3) == "no_audio_stream"
