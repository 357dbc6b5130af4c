"""Audio files for the tests: a tone in many formats, with or without pictures, whole or cut short."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container.output import OutputContainer
from av.video.stream import VideoStream

from tasks.audio import AudioReader, Samples

SECONDS = 6
# The tone sounds in [1 s, 3 s) and [4 s, 5 s).
BURSTS = ((1, 3), (4, 5))


def tone(rate: int) -> npt.NDArray[np.int16]:
    """The tone as 16-bit samples, one channel."""
    time = np.arange(SECONDS * rate) / rate
    sound = 0.4 * np.sin(2 * np.pi * 440 * time)
    sound[~np.any([(start <= time) & (time < end) for start, end in BURSTS], axis=0)] = 0
    return (sound * 32767).astype(np.int16)


def encode(
    path: Path,
    codec: str,
    *,
    rate: int = 44_100,
    layout: str = "stereo",
    options: dict[str, str] | None = None,
    pictures: bool = False,
    bit_rate: int = 0,
) -> Path:
    """Write the tone; with pictures, a black film that is as long twice over. `bit_rate` 0: the encoder's."""
    with av.open(path, "w", container_options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        if bit_rate:
            stream.bit_rate = bit_rate
        film = add_film(container) if pictures else None
        for second in range(SECONDS):
            samples = tone(rate)[second * rate : (second + 1) * rate]
            frame = AudioFrame.from_ndarray(np.repeat(samples, stream.channels)[None], "s16", layout)
            frame.rate, frame.pts = rate, second * rate
            container.mux(stream.encode(frame))
            if film:
                add_pictures(container, film, range(second * 10, second * 10 + 10))
        container.mux(stream.encode(None))
        if film:
            container.mux(film.encode(None))
    return path


def add_film(container: OutputContainer) -> VideoStream:
    """Open a stream of pictures, five a second."""
    film = container.add_stream("mpeg4", rate=5)
    film.width, film.height, film.pix_fmt = 64, 64, "yuv420p"
    return film


def add_pictures(container: OutputContainer, film: VideoStream, numbers: range) -> None:
    """Write black pictures."""
    for number in numbers:
        picture = av.VideoFrame(64, 64, "yuv420p")
        picture.pts = number
        container.mux(film.encode(picture))


def read(path: Path) -> tuple[Samples, list[str]]:
    """All samples of a file, as `tasks.audio` reads them, and its warnings."""
    reader = AudioReader(path)
    return np.concatenate(list(reader)), reader.warnings


def shorten(path: Path, share: float) -> Path:
    """Cut the end of a file off, in place; `share` of it stays."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path
