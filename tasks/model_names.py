"""What a model's name says: which model is meant, whether clients may name it, which languages it knows."""

import shutil
from pathlib import Path

from tasks.errors import ConfigurationError, InvalidInput, ModelLanguage, ModelNotAllowed
from tasks.job import is_english_only
from tasks.settings import Settings

_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht "
    "hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl "
    "ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh"
)
LANGUAGES = frozenset(_CODES.split())
FASTER_WHISPER = "faster-whisper"

# Short names -> repositories of the hub, as in faster_whisper.utils, which cannot be imported
# without CTranslate2.
REPOSITORIES = {
    "tiny.en": "Systran/faster-whisper-tiny.en",
    "tiny": "Systran/faster-whisper-tiny",
    "base.en": "Systran/faster-whisper-base.en",
    "base": "Systran/faster-whisper-base",
    "small.en": "Systran/faster-whisper-small.en",
    "small": "Systran/faster-whisper-small",
    "medium.en": "Systran/faster-whisper-medium.en",
    "medium": "Systran/faster-whisper-medium",
    "large-v1": "Systran/faster-whisper-large-v1",
    "large-v2": "Systran/faster-whisper-large-v2",
    "large-v3": "Systran/faster-whisper-large-v3",
    "large": "Systran/faster-whisper-large-v3",
    "distil-large-v2": "Systran/faster-distil-whisper-large-v2",
    "distil-medium.en": "Systran/faster-distil-whisper-medium.en",
    "distil-small.en": "Systran/faster-distil-whisper-small.en",
    "distil-large-v3": "Systran/faster-distil-whisper-large-v3",
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}

# What clients may name unless the operator says otherwise: stock sizes, and ivrit.ai's Hebrew and Yiddish.
DEFAULT_MODELS = (
    *REPOSITORIES,
    "ivrit-ai/whisper-large-v3-ct2",
    "ivrit-ai/whisper-large-v3-turbo-ct2",
    "ivrit-ai/yi-whisper-large-v3-ct2",
    "ivrit-ai/yi-whisper-large-v3-turbo-ct2",
)
# In LONGHAND_ALLOWED_MODELS: all of the above; any model at all.
DEFAULTS, ANY = "default", "*"


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


def models_to_load(settings: Settings) -> tuple[str, ...]:
    """What a worker loads before its first chunk arrives; the most important one first."""
    return settings.preload_models or (model_of("", settings),)


def allowed_models(settings: Settings) -> tuple[str, ...]:
    """What clients may name, apart from folders in LONGHAND_MODEL_DIR; the operator's own first."""
    own = (settings.model, *settings.endpoint_models, *settings.preload_models)
    listed = [
        name
        for entry in settings.allowed_models
        for name in (DEFAULT_MODELS if entry == DEFAULTS else (entry,))
    ]
    return tuple(dict.fromkeys(filter(None, (*own, *listed))))


def check_allowed(name: str, settings: Settings) -> None:
    """Raise ModelNotAllowed, which has the list, for a model that clients may not name; "" is the default.

    A short name stands for its repository, and the other way round.
    """
    allowed = allowed_models(settings)
    if not name or ANY in allowed or _repository(name) in map(_repository, allowed):
        return
    if settings.model_dir is not None and is_plain(name):
        folders = (settings.model_dir.expanduser() / inner for inner in places_in(name))
        if any(map(is_model, folders)):
            return
    # A path says more of this machine than a client needs.
    shown = ", ".join(each for each in allowed if is_plain(each))
    raise ModelNotAllowed(f"model {name!r} is not offered here; these are: {shown}")


def _repository(name: str) -> str:
    return REPOSITORIES.get(name, name)


def is_plain(name: str) -> bool:
    """`model` or `owner/model`: no way up or out of a folder, no address."""
    parts = name.split("/")
    allowed = name.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    return (
        len(parts) <= 2
        and all(part.strip(".") for part in parts)
        and ".." not in name
        and allowed.isascii()
        and allowed.isalnum()
    )


def places_in(name: str) -> tuple[str, ...]:
    """Where in LONGHAND_MODEL_DIR a model may lie: under its name, or under the last part of it."""
    return tuple(dict.fromkeys((name, name.rpartition("/")[2])))


def is_model(folder: Path) -> bool:
    """Whether the folder holds what CTranslate2 needs to load a Whisper model."""
    return (
        (folder / "model.bin").is_file()
        and (folder / "config.json").is_file()
        and any((folder / file).is_file() for file in ("vocabulary.json", "vocabulary.txt"))
    )


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
