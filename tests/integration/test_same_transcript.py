"""With a real model one recording gives the same transcript, to the byte, whoever has which part of it."""

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper.audio import decode_audio

from dispatcher.client import segments_of
from dispatcher.local import Plan
from tasks.settings import Settings
from tests.conftest import Eventually, Receiver, Stack, emptied, stack_of
from tests.fleet import worker_process

SAMPLE = Path(__file__).parents[2] / "demo" / "sample.opus"
SECONDS = 80
# A busy machine is slow.
LONG_S = 60


def write_sample(path: Path) -> None:
    """The beginning of the demo's recording."""
    samples = decode_audio(str(SAMPLE))[: SECONDS * 16_000]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32_767).astype(np.int16).tobytes())


def chunks_done(log: Path) -> int:
    return log.read_text().count('"chunk_done"')


def test_two_workers_write_what_one_had_written(
    redis_url: str, receiver: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    write_sample(receiver.folder / "talk.wav")
    settings = Settings(
        data_dir=tmp_path / "data",
        redis_url=emptied(redis_url, 12),
        model="tiny.en",
        device="cpu",
        allow_private_addresses=True,
    )

    def transcribed(running: Stack) -> dict[str, Any]:
        job_id = running.client.submit({"url": f"{receiver.url}/talk.wav", "chunk_seconds": 10})
        shown: dict[str, Any] = eventually(lambda: running.ended(job_id), LONG_S, "the end of the job")
        assert shown["status"] == "COMPLETED"
        assert len(running.store.chunks(job_id)) >= 6
        return {"segments": json.dumps(segments_of(shown["output"])), "quality": shown["quality"]}

    plan, log = Plan(port=0, workers=1, redis_url=settings.redis_url), tmp_path / "log"
    with stack_of(settings, plan) as running:
        alone = transcribed(running)
        assert len(alone["segments"]) > 10_000, "with every word's time and probability"
        with worker_process(settings, log):
            eventually(lambda: running.store.slots("transcribe")[0] == 2, LONG_S, "another worker")
            logs = running.folder / "logs" / "transcribe.log", log
            shared = False
            while not shared:
                before = [*map(chunks_done, logs)]
                assert transcribed(running) == alone
                # One of the two may have been faster, every time.
                shared = all(now > then for now, then in zip(map(chunks_done, logs), before, strict=True))
