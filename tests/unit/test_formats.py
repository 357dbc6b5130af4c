import csv
import html
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.formats import FORMATS, stamp
from tasks.transcript import Segment, Transcript, Word

patient = settings(deadline=None)

HOUR_MS = 3_600_000
TRANSCRIPT = Transcript(
    segments=(
        Segment("שלום לכולם.", 0, 1_500, (Word(" שלום", 0, 700, 0.75), Word(" לכולם.", 700, 1_500, 0.5))),
        Segment("if a --> b\n\nthen <b> & c", HOUR_MS + 61_001, HOUR_MS + 62_999),
    ),
    duration_ms=HOUR_MS + 63_000,
    language="he",
    warnings=("chunk 3 is missing",),
)

# What breaks captions, often; any other text, sometimes.
nasty = st.lists(
    st.sampled_from(
        ["-", ">", "-->", "\n", "\r", "\t", "\u2028", "\x85", " ", "&", "<", "&lt;", "'", "1", "א"]
    )
)
texts = st.one_of(nasty.map("".join), st.text(max_size=30))
spans = st.builds(Segment, texts, st.integers(0, 400 * HOUR_MS), st.integers(0, 400 * HOUR_MS))
transcripts = st.lists(spans, max_size=6).map(lambda segments: Transcript(tuple(segments), 400 * HOUR_MS))


def stamp_to_ms(text: str) -> int:
    hours, minutes, seconds, milliseconds = map(int, re.split("[:,.]", text))
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


def one_line(text: str) -> str:
    return " ".join(text.split())


def cues(block: str) -> list[tuple[int, int, str]]:
    """Read captions as players do: blank line, stamps around an arrow, text up to the next blank line."""
    found = []
    for cue in block.strip("\n").split("\n\n"):
        lines = cue.split("\n")
        span = next(i for i, line in enumerate(lines) if "-->" in line)
        start, arrow, end = lines[span].split(" ")
        assert (arrow, span + 2) == ("-->", len(lines))
        found.append((stamp_to_ms(start), stamp_to_ms(end), lines[span + 1]))
    return found


def expected(transcript: Transcript) -> list[tuple[int, int, str]]:
    rows = [(s.start_ms, s.end_ms, one_line(s.text)) for s in transcript.segments]
    return [row for row in rows if row[2]]


def test_the_formats() -> None:
    assert list(FORMATS) == ["txt", "srt", "vtt", "tsv", "json"]


def test_txt() -> None:
    assert FORMATS["txt"](TRANSCRIPT) == "שלום לכולם.\nif a --> b then <b> & c\n"


def test_srt() -> None:
    assert FORMATS["srt"](TRANSCRIPT) == (
        "1\n00:00:00,000 --> 00:00:01,500\nשלום לכולם.\n\n"
        "2\n01:01:01,001 --> 01:01:02,999\nif a -> b then <b> & c\n\n"
    )


@pytest.mark.parametrize("arrow", ["-->", "--->", "------>"])
def test_no_arrow_of_any_length_survives_in_srt(arrow: str) -> None:
    text = FORMATS["srt"](Transcript((Segment(f"a {arrow} b", 0, 1),), 1))
    assert text == "1\n00:00:00,000 --> 00:00:00,001\na -> b\n\n"


def test_vtt() -> None:
    assert FORMATS["vtt"](TRANSCRIPT) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:01.500\nשלום לכולם.\n\n"
        "01:01:01.001 --> 01:01:02.999\nif a --&gt; b then &lt;b&gt; &amp; c\n\n"
    )


def test_tsv() -> None:
    assert FORMATS["tsv"](TRANSCRIPT) == (
        "start\tend\ttext\n0\t1500\tשלום לכולם.\n3661001\t3662999\tif a --> b then <b> & c\n"
    )


def test_json() -> None:
    text = FORMATS["json"](TRANSCRIPT)
    assert "שלום" in text
    document = json.loads(text)
    assert list(document) == ["language", "duration", "segments", "warnings"]
    assert (document["language"], document["duration"]) == ("he", 3663.0)
    assert document["warnings"] == ["chunk 3 is missing"]
    assert document["segments"][0] == {
        "start": 0.0,
        "end": 1.5,
        "text": "שלום לכולם.",
        "words": [
            {"word": " שלום", "start": 0.0, "end": 0.7, "probability": 0.75},
            {"word": " לכולם.", "start": 0.7, "end": 1.5, "probability": 0.5},
        ],
    }
    assert document["segments"][1]["text"] == TRANSCRIPT.segments[1].text


def test_json_tells_the_language_of_a_segment_that_is_in_another() -> None:
    first, second = TRANSCRIPT.segments
    mixed = replace(TRANSCRIPT, segments=(replace(first, language="he"), replace(second, language="en")))
    segments = json.loads(FORMATS["json"](mixed))["segments"]
    assert [segment.get("language") for segment in segments] == [None, "en"]


@pytest.mark.parametrize(
    ("name", "text"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n")]
)
def test_silence_is_an_empty_document(name: str, text: str) -> None:
    assert FORMATS[name](Transcript((), 1_000)) == text
    assert FORMATS[name](Transcript((Segment(" \n", 0, 1_000),), 1_000)) == text


@pytest.mark.parametrize(
    ("ms", "text"), [(999, "00:00:00,999"), (3_599_999, "00:59:59,999"), (100 * HOUR_MS, "100:00:00,000")]
)
def test_stamp(ms: int, text: str) -> None:
    assert stamp(ms, ",") == text


@given(st.integers(0, 1_000 * HOUR_MS))
def test_a_stamp_keeps_every_millisecond(ms: int) -> None:
    for mark in ",.":
        text = stamp(ms, mark)
        assert re.fullmatch(rf"\d{{2,}}:[0-5]\d:[0-5]\d\{mark}\d{{3}}", text)
        assert stamp_to_ms(text) == ms


@patient
@given(transcripts)
def test_captions_read_back_whatever_was_said(transcript: Transcript) -> None:
    rows = expected(transcript)
    vtt = FORMATS["vtt"](transcript)
    assert vtt.startswith("WEBVTT\n\n")
    srt = FORMATS["srt"](transcript)
    if rows:
        read = cues(vtt.removeprefix("WEBVTT\n\n"))
        # Escaped by hand, because html.unescape also knows names that WebVTT does not.
        assert read == [(start, end, html.escape(text, quote=False)) for start, end, text in rows]
        assert [cue[:2] for cue in cues(srt)] == [row[:2] for row in rows]
    assert srt.count("-->") == vtt.count("-->") == len(rows)


@patient
@given(transcripts)
def test_a_table_has_one_row_of_three_cells_per_segment(transcript: Transcript) -> None:
    lines = FORMATS["tsv"](transcript).removesuffix("\n").split("\n")
    rows = list(csv.reader(lines[1:], delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [(int(start), int(end), text) for start, end, text in rows] == expected(transcript)
