"""Options of the engine as a client sends them: honoured or refused by name, and the page that says so."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dispatcher.options import FIXED, OPTION_NAMES, RANGES, STABLE_TS, parse_options, refuse_others
from dispatcher.schemas import TranscribeArgs, parse_input
from tasks.errors import InvalidInput, LonghandError, UnsupportedOption
from tasks.job import VAD_PARAMETERS, Options
from tasks.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
URL = "https://example.com/talk.mp3"


def options(**arguments: Any) -> Options:
    job_input = {"url": URL, "transcribe_args": arguments}
    return parse_input(job_input, Settings(model="multi")).request.options


def refusal(**arguments: Any) -> LonghandError:
    with pytest.raises(LonghandError) as caught:
        options(**arguments)
    return caught.value


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert lines, heading
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_page_names_every_option_with_its_default_and_its_range() -> None:
    told = {
        name.strip("`"): (json.loads(default.strip("`")), limits)
        for name, default, limits, _ in rows("Honoured")
    }
    defaults = {name: getattr(Options(), name) for name in OPTION_NAMES}
    ranges = {name: "{:g} to {:g}".format(*RANGES[name]) if name in RANGES else "" for name in OPTION_NAMES}
    assert told == {name: (defaults[name], ranges[name]) for name in OPTION_NAMES}
    assert all(f"`{name}`" in PAGE for name in VAD_PARAMETERS)


def test_the_page_names_what_is_fixed() -> None:
    told = {name.strip("`"): (tuple(cell.split(" or ")), why) for name, cell, why in rows("Only one way")}
    assert told == {
        name: (tuple(f"`{json.dumps(value)}`" for value in fixed.accepted), fixed.why)
        for name, fixed in FIXED.items()
    }


def test_the_page_names_the_options_of_stable_ts() -> None:
    told = PAGE.partition("only stable-ts")[2].partition("So is")[0]
    assert set(re.findall("`(.*?)`", told)) == STABLE_TS


@pytest.mark.parametrize("name", FIXED)
def test_what_is_done_anyway_is_accepted_and_changes_nothing(name: str) -> None:
    for value in FIXED[name].accepted:
        assert options(**{name: value}) == Options()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vad_filter", False),
        ("condition_on_previous_text", True),
        ("prompt_reset_on_temperature", 0.9),
        ("prefix", "So"),
        ("without_timestamps", False),
        ("max_initial_timestamp", 0.5),
        ("clip_timestamps", [1.0, 2.0]),
        ("hallucination_silence_threshold", 2.0),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: object) -> None:
    error = refusal(**{name: value})
    assert error.code == "unsupported_option"
    assert f"transcribe_args.{name} can only be {json.dumps(FIXED[name].accepted[0])}" in str(error)
    assert FIXED[name].why in str(error)
    for accepted in (*OPTION_NAMES, *TranscribeArgs.model_fields):
        assert accepted in str(error).partition("Accepted are:")[2]


def test_no_fixed_option_is_left_out_of_the_test_above() -> None:
    marks = getattr(test_what_cannot_be_honoured_is_refused_by_name, "pytestmark")  # noqa: B009  as in test_schemas
    assert {case[0] for case in marks[0].args[1]} == set(FIXED)


@pytest.mark.parametrize("engine", ["faster-whisper", "stable-whisper"])
@pytest.mark.parametrize("name", sorted(STABLE_TS))
def test_an_option_of_stable_ts_is_refused_by_name_whatever_engine_is_named(name: str, engine: str) -> None:
    job_input = {"url": URL, "engine": engine, "transcribe_args": {name: True}}
    with pytest.raises(
        UnsupportedOption, match=f"transcribe_args.{name} is an option of stable-ts"
    ) as caught:
        parse_input(job_input, Settings(model="multi"))
    assert "beam_size" in str(caught.value).partition("Accepted are:")[2]


@pytest.mark.parametrize("name", ["diarize", "diarization_args"])
def test_telling_speakers_apart_is_not_supported_yet(name: str) -> None:
    error = refusal(**{name: {"num_speakers": 2} if name == "diarization_args" else True})
    assert (error.code, f"transcribe_args.{name} is not supported yet" in str(error)) == (
        "unsupported_option",
        True,
    )


@pytest.mark.parametrize("name", RANGES)
def test_a_value_out_of_its_range_is_refused(name: str) -> None:
    least, most = RANGES[name]
    for value in (least, most):
        assert getattr(options(**{name: value}), name) == value
    for value in (least - 1, most + 1):
        assert f"transcribe_args.{name} must be from" in str(refusal(**{name: value}))


@pytest.mark.parametrize("ladder", [[0.0, 0.2, 0.4], [0.5], [0]])
def test_temperatures_may_be_several(ladder: list[float]) -> None:
    assert options(temperature=ladder).temperatures == tuple(ladder)
    assert options(temperature=ladder).samples == any(ladder)


@pytest.mark.parametrize("ladder", [[], [0.1] * 11, [0.0, 2.5], ["warm"], [None]])
def test_temperatures_that_make_no_sense_are_refused(ladder: list[object]) -> None:
    error = refusal(temperature=ladder)
    assert type(error) is InvalidInput
    assert "transcribe_args.temperature" in str(error)


def test_one_temperature_of_zero_samples_nothing() -> None:
    assert (Options().temperatures, Options().samples) == ((0.0,), False)
    assert Options(temperature=0.3).samples


def test_a_prompt_may_be_tokens() -> None:
    assert options(initial_prompt=[50, 60]).initial_prompt == [50, 60]
    assert options(initial_prompt="50").initial_prompt == "50"


def test_an_absent_value_of_faster_whispers_own_is_accepted() -> None:
    assert options(vad_parameters=None, language=None, max_new_tokens=None, chunk_length=None) == Options()


def test_log_progress_is_accepted() -> None:
    assert options(log_progress=True) == options(log_progress=False) == Options()


def test_other_names_are_left_alone() -> None:
    refuse_others({"beams": 5}, ())
    assert parse_options({"beams": 5}, word_timestamps=False) == Options(word_timestamps=False)


def test_no_name_has_two_meanings() -> None:
    assert not STABLE_TS & {*OPTION_NAMES, *FIXED, *TranscribeArgs.model_fields}
    assert set(RANGES) <= {field.name for field in fields(Options)}
