"""Speech in several languages by eSpeak NG: a robot's voice, which Whisper base understands somewhat."""

import ctypes
import io
import sys
import wave
from collections.abc import Sequence

import numpy as np
from faster_whisper.audio import decode_audio

from tasks.windows import Audio
from tests.multilingual.assets import SYNTHESISER
from tests.speech import SECOND

# Of speak_lib.h: audio is handed to a callback, text is UTF-8, which parameter is the speed.
_SYNCHRONOUS, _UTF8, _RATE = 2, 1, 1
_WORDS_A_MINUTE = 140
_OnSound = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

# By the code of Whisper: the voice, and what it says. eSpeak's Hebrew has no vowels where none are written,
# so Hebrew is written as a Pole would hear it.
SAID = {
    "en": (
        "en-us",
        "Good morning. Today we are going to talk about the weather in the mountains, and about the people"
        " who live there.",
    ),
    "fr": (
        "fr",
        "Bonjour à tous. Aujourd'hui, nous allons parler du temps qu'il fait dans les montagnes, et des gens"
        " qui y habitent depuis toujours. Je voudrais dire merci à tous nos amis, qui sont venus"
        " aujourd'hui.",
    ),
    "de": (
        "de",
        "Guten Morgen. Heute sprechen wir über das Wetter in den Bergen und über die Menschen, die dort"
        " wohnen. Ich möchte allen unseren Freunden danken, die heute zu uns gekommen sind.",
    ),
    "he": (
        "pl+f2",
        "Boker tow lekulam. Hajom nedaber al mezeg hałir beharim, we al haanaszim szegarim szam. Ani roce"
        " lehagid toda raba lekol hachawerim szelanu, szebau elenu hajom.",
    ),
}


class Synthesiser:
    """eSpeak NG, of which a process can have one."""

    def __init__(self) -> None:
        suffix = "dylib" if sys.platform == "darwin" else "so"
        self._library = ctypes.CDLL(str(SYNTHESISER / f"libespeak-ng.{suffix}"))
        data = str(SYNTHESISER / "espeak-ng-data").encode()
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        assert self._rate > 0, "eSpeak NG does not find its data"
        self._sound = bytearray()
        # Kept, since the library keeps no reference.
        self._callback = _OnSound(self._heard)
        self._library.espeak_SetSynthCallback(self._callback)

    def _heard(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: object) -> int:
        if samples and count > 0:
            self._sound += ctypes.string_at(samples, 2 * count)
        return 0

    def say(self, language: str) -> Audio:
        """What SAID has of a language, as 16 kHz samples in [-1, 1], without silence around it."""
        voice, text = SAID[language]
        assert self._library.espeak_SetVoiceByName(voice.encode()) == 0, voice
        self._library.espeak_SetParameter(_RATE, _WORDS_A_MINUTE, 0)
        self._sound.clear()
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        audio: Audio = decode_audio(io.BytesIO(_wav(bytes(self._sound), self._rate)))
        return audio


def wav(audio: Audio) -> bytes:
    """16 kHz samples as a file."""
    return _wav((np.clip(audio, -1, 1) * 32_767).astype("<i2").tobytes(), SECOND)


def spaced(parts: Sequence[Audio], pause_s: float = 1.5) -> Audio:
    """One after the other, with silence before, between and after them."""
    pause = np.zeros(int(pause_s * SECOND), np.float32)
    return np.concatenate([pause, *(sound for part in parts for sound in (part, pause))])


def _wav(samples: bytes, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return file.getvalue()
