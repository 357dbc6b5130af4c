"""What a model's name says: which languages it knows, and which model is meant where none is named."""

import shutil
from pathlib import Path

from tasks.errors import ConfigurationError, InvalidInput, ModelLanguage
from tasks.job import is_english_only
from tasks.settings import Settings

_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht "
    "hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl "
    "ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh"
)
LANGUAGES = frozenset(_CODES.split())
FASTER_WHISPER = "faster-whisper"


def detect_device(setting: str, *, devices: Path = Path("/dev")) -> str:
    """The device a model runs on, "cpu" or "cuda", found without loading CUDA.

    Raises ConfigurationError for a setting other than auto, cpu and cuda.
    """
    if setting in ("cpu", "cuda"):
        return setting
    if setting != "auto":
        raise ConfigurationError(f"LONGHAND_DEVICE is {setting!r}; use auto, cpu or cuda")
    visible = any(devices.glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None
    return "cuda" if visible else "cpu"


def default_model(device: str) -> str:
    """The model of a job that names none."""
    return "ivrit-ai/whisper-large-v3-turbo-ct2" if device == "cuda" else "tiny.en"


def model_of(name: str, settings: Settings) -> str:
    """The model of a job that names `name`, or none with ""."""
    return name or settings.model or default_model(detect_device(settings.device))


def engine_of(settings: Settings) -> str:
    """The name of the engine that runs, whatever the client asked for."""
    default: str = Settings.model_fields["engine"].default
    return FASTER_WHISPER if settings.engine == default else settings.engine


def check_language(name: str, language: str | None, task: str, multilingual: bool) -> None:
    """Hold a job's language against its model's name; None and "" mean: detect it.

    Raises InvalidInput for a code that Whisper does not know, ModelLanguage for an English-only model
    asked for anything but English.
    """
    if language and language not in LANGUAGES:
        raise InvalidInput(f"language {language!r} is not a code that Whisper knows, such as en, he or fr")
    if is_english_only(name):
        refuse_other_languages(name, language, task, multilingual)


def refuse_other_languages(name: str, language: str | None, task: str, multilingual: bool) -> None:
    """Raise ModelLanguage unless an English-only model can do this."""
    if language and language != "en":
        raise ModelLanguage(f"model {name} knows only English, and language {language!r} was asked for")
    if task == "translate":
        raise ModelLanguage(f"model {name} knows only English and cannot translate")
    if multilingual:
        raise ModelLanguage(f"model {name} knows only English; leave out multilingual")
