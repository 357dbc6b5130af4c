"""The file formats a transcript is written in. Each writer is a function of the transcript alone."""

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from tasks.transcript import Segment, Transcript, Word


def stamp(ms: int, decimal_mark: str) -> str:
    """`HH:MM:SS` and milliseconds, as SubRip (`,`) and WebVTT (`.`) write them; hours may pass 99."""
    seconds, milliseconds = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


def _lines(transcript: Transcript) -> Iterator[tuple[Segment, str]]:
    """Each segment with its text on one line; a blank line ends a cue, so empty ones are left out."""
    for segment in transcript.segments:
        if line := " ".join(segment.text.split()):
            yield segment, line


def txt(transcript: Transcript) -> str:
    """Plain text, one line per segment."""
    return "".join(f"{line}\n" for _, line in _lines(transcript))


def srt(transcript: Transcript) -> str:
    """SubRip. It has no escapes, so an arrow in the text loses length: `-->` becomes `->`."""
    cues = []
    for number, (segment, line) in enumerate(_lines(transcript), 1):
        span = f"{stamp(segment.start_ms, ',')} --> {stamp(segment.end_ms, ',')}"
        cues.append(f"{number}\n{span}\n{re.sub('-{2,}>', '->', line)}\n\n")
    return "".join(cues)


def vtt(transcript: Transcript) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/); `&`, `<` and `>` are escaped, and with them any `-->`."""
    cues = ["WEBVTT\n\n"]
    for segment, line in _lines(transcript):
        span = f"{stamp(segment.start_ms, '.')} --> {stamp(segment.end_ms, '.')}"
        cues.append(f"{span}\n{html.escape(line, quote=False)}\n\n")
    return "".join(cues)


def tsv(transcript: Transcript) -> str:
    """Whisper's table: start and end in ms, and the text."""
    rows = [f"{segment.start_ms}\t{segment.end_ms}\t{line}\n" for segment, line in _lines(transcript)]
    return "start\tend\ttext\n" + "".join(rows)


def json_document(transcript: Transcript) -> str:
    """One JSON object with all there is; times are seconds. Only a segment in another language tells it."""
    document = {
        "language": transcript.language,
        "duration": transcript.duration_ms / 1000,
        "segments": [
            {
                "start": segment.start_ms / 1000,
                "end": segment.end_ms / 1000,
                "text": segment.text,
                "words": [_word(word) for word in segment.words],
                **_other_language(segment, transcript),
            }
            for segment in transcript.segments
        ],
        "warnings": list(transcript.warnings),
    }
    return json.dumps(document, ensure_ascii=False) + "\n"


def _other_language(segment: Segment, transcript: Transcript) -> dict[str, object]:
    return {"language": segment.language} if segment.language not in ("", transcript.language) else {}


def _word(word: Word) -> dict[str, object]:
    return {
        "word": word.text,
        "start": word.start_ms / 1000,
        "end": word.end_ms / 1000,
        "probability": word.probability,
    }


FORMATS: Mapping[str, Callable[[Transcript], str]] = MappingProxyType(
    {"txt": txt, "srt": srt, "vtt": vtt, "tsv": tsv, "json": json_document}
)
