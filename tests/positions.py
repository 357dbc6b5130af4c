"""Recordings of noise, in which every place can be told from every other, and where a stretch of one lies."""

from functools import cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Disposition

from tasks.audio import Samples, Sound, load
from tasks.chunks import Chunk
from tasks.decoded import Cut
from tests.media import add_film, add_pictures

RATE = 16_000
# Lags are looked for up to here.
FAR = RATE // 2


@cache
def noise(seconds: int, rate: int) -> npt.NDArray[np.int16]:
    """Noise below 3 kHz, which every codec keeps, with a pause of 300 ms every 4 s; one channel."""
    drawn = np.random.default_rng(seconds).standard_normal(seconds * RATE)
    spectrum = np.fft.rfft(drawn)
    spectrum[3_000 * seconds :] = 0
    sound = np.fft.irfft(spectrum)
    time = np.arange(len(sound)) / RATE
    sound[(time % 4 > 3.7) & (time > 1)] *= 0.001
    moments = np.arange(seconds * rate) / rate
    samples: npt.NDArray[np.int16] = (np.interp(moments, time, sound / np.abs(sound).max()) * 20_000).astype(
        np.int16
    )
    return samples


def write_noise(
    path: Path,
    codec: str,
    *,
    rate: int = 44_100,
    layout: str = "stereo",
    seconds: int = 20,
    bit_rate: int = 0,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    pictures: bool = False,
    streams: int = 1,
    default: int | None = None,
) -> Path:
    """Write it; of several audio streams, each has the noise a second later than the one before.

    `default` is the number of the one that is marked so; None leaves that to the container.
    """
    with av.open(path, "w", container_options=options or {}) as container:
        film = add_film(container) if pictures else None
        sounds = [
            container.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
            for _ in range(streams)
        ]
        if default is not None:
            for number, stream in enumerate(sounds):
                stream.disposition = Disposition.default if number == default else Disposition(0)
        told = [np.roll(noise(seconds, rate), number * rate) for number in range(streams)]
        for second in range(seconds):
            for sound, stream in zip(told, sounds, strict=True):
                assert isinstance(stream, AudioStream)
                if bit_rate and not second:
                    stream.bit_rate = bit_rate
                samples = np.repeat(sound[second * rate : (second + 1) * rate], stream.channels)
                frame = AudioFrame.from_ndarray(samples[None], "s16", layout)
                frame.rate, frame.pts = rate, second * rate
                container.mux(stream.encode(frame))
            if film:
                add_pictures(container, film, range(second * 5, second * 5 + 5))
        for stream in sounds:
            assert isinstance(stream, AudioStream)
            container.mux(stream.encode(None))
        if film:
            container.mux(film.encode(None))
    return path


def decode_whole(path: Path, stream: int = 0) -> Samples:
    """All samples of a stream, as FFmpeg decodes the file itself."""
    with av.open(path, metadata_errors="replace") as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frames = [made for frame in container.decode(audio=stream) for made in resampler.resample(frame)]
        frames += resampler.resample(None)
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def lag_ms(part: Samples, whole: Samples) -> float:
    """By how much `part` is later than `whole`, two stretches of about the same time; by correlation."""
    size = 1 << (len(part) + len(whole)).bit_length()
    product = np.fft.rfft(part, size) * np.conj(np.fft.rfft(whole, size))
    correlation = np.fft.irfft(product, size)
    near = np.concatenate([correlation[-FAR:], correlation[:FAR]])
    likeness = near.max() / (np.linalg.norm(part) * np.linalg.norm(whole) + 1e-9)
    assert likeness > 0.5, f"the two are not alike ({likeness:.2f})"
    return float(np.argmax(near) - FAR) / 16


def sound_of(made: Cut) -> Sound:
    """What a worker makes of a chunk."""
    span = made.span
    return load(made.data, Chunk(0, span.start_ms, span.end_ms, made.digest, "", made.origin_ms))


def chunk_lags_ms(chunks: list[Cut], whole: Samples) -> list[float]:
    """How late the first and the last second of each chunk are in what a worker makes of it."""
    lags = []
    for made in chunks:
        sound, expected = sound_of(made), whole[made.span.start_ms * 16 : made.span.end_ms * 16]
        assert sound.damaged == 0
        assert len(sound.samples) == (made.span.end_ms - made.span.start_ms) * 16
        for part in (slice(0, RATE), slice(len(expected) - RATE, len(expected))):
            lags.append(lag_ms(sound.samples[part], expected[part]))
    return lags
