import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from tasks.errors import (
    ConfigurationError,
    InvalidInput,
    LonghandError,
    ModelLanguage,
    ModelNotAllowed,
    ModelUnavailable,
    UnknownModel,
)
from tasks.job import is_english_only
from tasks.model_names import (
    DEFAULT_MODELS,
    LANGUAGES,
    allowed_models,
    check_allowed,
    check_language,
    default_model,
    detect_device,
    engine_of,
    model_of,
    models_to_load,
)
from tasks.models import resolve
from tasks.settings import Settings


def make_model(folder: Path, *, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for name in ("model.bin", "config.json", "vocabulary.json", "tokenizer.json"):
        if name != without:
            (folder / name).write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that answers nothing."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return folder


def make_cached(cache: Path, repository: str, *, without: str = "") -> Path:
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    return make_model(root / "snapshots" / ("0" * 40), without=without)


def test_loads_nothing() -> None:
    heavy = "{'ctranslate2', 'torch', 'numpy', 'faster_whisper'} & set(sys.modules)"
    code = f"import sys, tasks.models; tasks.models.resolve('tiny.en', None); print({heavy})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "set()\n"


@pytest.mark.parametrize("name", ["tiny.en", "Systran/faster-whisper-tiny.en"])
def test_finds_the_installed_package(name: str) -> None:
    assert (resolve(name, None, download=False) / "model.bin").stat().st_size > 1_000_000


def test_finds_a_name_and_its_last_part_in_the_model_dir(tmp_path: Path) -> None:
    plain = make_model(tmp_path / "mine")
    owned = make_model(tmp_path / "owner" / "theirs")
    assert resolve("mine", tmp_path) == plain
    assert resolve("owner/mine", tmp_path) == plain
    assert resolve("owner/theirs", tmp_path) == owned


def test_the_model_dir_comes_before_the_package(tmp_path: Path) -> None:
    own = make_model(tmp_path / "tiny.en")
    assert resolve("tiny.en", tmp_path) == own


@pytest.mark.parametrize("missing", ["model.bin", "config.json", "vocabulary.json"])
def test_a_folder_without_all_files_is_no_model(tmp_path: Path, missing: str) -> None:
    make_model(tmp_path / "mine", without=missing)
    with pytest.raises(UnknownModel):
        resolve("mine", tmp_path, download=False)


def test_a_tokenizer_is_not_needed_besides_the_vocabulary(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", without="tokenizer.json")
    assert resolve("mine", tmp_path) == folder


def test_finds_the_hub_cache_by_repository_and_short_name(cache: Path) -> None:
    folder = make_cached(cache, "mobiuslabsgmbh/faster-whisper-large-v3-turbo")
    assert resolve("mobiuslabsgmbh/faster-whisper-large-v3-turbo", None, download=False) == folder
    assert resolve("large-v3-turbo", None, download=False) == folder


def test_a_cached_repository_of_another_kind_is_refused(cache: Path) -> None:
    make_cached(cache, "openai/whisper-tiny", without="model.bin")
    with pytest.raises(UnknownModel, match="no CTranslate2 model"):
        resolve("openai/whisper-tiny", None, download=False)


def test_the_error_names_everything_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        resolve("owner/absent", tmp_path)
    assert caught.value.retryable, "a hub that does not answer may do so later"
    for place in ("owner/absent in LONGHAND_MODEL_DIR", "absent in LONGHAND_MODEL_DIR", "cache", "hub ("):
        assert place in str(caught.value)
    assert str(tmp_path) not in str(caught.value), "a client learns nothing of this machine's folders"


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "RepoNotFound", UnknownModel),
        (401, "", UnknownModel),
        (403, "GatedRepo", UnknownModel),
        (503, "", ModelUnavailable),
        (429, "", ModelUnavailable),
    ],
)
def test_what_the_hub_answers_tells_whether_to_try_again(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, error: type[LonghandError]
) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(LonghandError) as caught:
            resolve("owner/absent", None)
        server.shutdown()
    assert type(caught.value) is error, str(caught.value)


def test_without_the_hub_only_what_is_there_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModel, match="hub"):
        resolve("owner/absent", None)


def test_an_unknown_short_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match="large-v3-turbo"):
        resolve("enormous", None)


def test_a_path_is_for_the_operator_only(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    assert resolve(str(folder), None, allow_path=True) == folder
    with pytest.raises(UnknownModel):
        resolve(str(folder), None)


@pytest.mark.parametrize(
    "name",
    [
        "../mine",
        "..",
        ".",
        "",
        "a/../mine",
        "a/b/mine",
        "/mine",
        "~/mine",
        "mine\\x",
        "mine\0",
        "http://mine",
    ],
)
def test_a_name_cannot_leave_the_model_dir(tmp_path: Path, name: str) -> None:
    make_model(tmp_path / "mine")
    make_model(tmp_path / "models" / "a" / "b" / "mine")
    with pytest.raises(UnknownModel, match="not the name of a model"):
        resolve(name, tmp_path / "models")


def test_the_device_is_the_setting_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    devices = tmp_path / "dev"
    devices.mkdir()
    assert detect_device("cuda", devices=devices) == "cuda"
    assert detect_device("auto", devices=devices) == "cpu"
    (devices / "nvidia3").touch()
    assert detect_device("auto", devices=devices) == "cuda"
    assert detect_device("cpu", devices=devices) == "cpu"
    (devices / "nvidia3").unlink()
    tool = tmp_path / "nvidia-smi"
    tool.touch(mode=0o755)
    assert detect_device("auto", devices=devices) == "cuda"
    with pytest.raises(ConfigurationError, match="LONGHAND_DEVICE"):
        detect_device("tpu", devices=devices)


def test_the_model_of_a_job_that_names_none() -> None:
    assert default_model("cpu") == "tiny.en"
    assert default_model("cuda") == "ivrit-ai/whisper-large-v3-turbo-ct2"
    assert model_of("", Settings(device="cpu")) == "tiny.en"
    assert model_of("", Settings(device="cuda")) == "ivrit-ai/whisper-large-v3-turbo-ct2"
    assert model_of("", Settings(model="small")) == "small"
    assert model_of("base", Settings(model="small")) == "base"


def test_what_is_loaded_before_the_first_chunk() -> None:
    assert models_to_load(Settings(device="cpu")) == ("tiny.en",)
    assert models_to_load(Settings(device="cpu", model="small")) == ("small",)
    assert models_to_load(Settings(model="small", preload_models=("base", "small"))) == ("base", "small")


@pytest.mark.parametrize(
    "name",
    [
        *("", "tiny", "large-v3", "turbo", "distil-large-v3.5", "Systran/faster-whisper-tiny.en"),
        *("ivrit-ai/whisper-large-v3-ct2", "ivrit-ai/whisper-large-v3-turbo-ct2"),
        *("ivrit-ai/yi-whisper-large-v3-ct2", "ivrit-ai/yi-whisper-large-v3-turbo-ct2"),
    ],
)
def test_clients_may_name_the_stock_sizes_and_those_of_ivrit(name: str) -> None:
    check_allowed(name, Settings())


@pytest.mark.parametrize("name", ["somebody/model", "enormous", "../../etc/passwd", "/models/mine", "Tiny"])
def test_another_model_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(ModelNotAllowed) as caught:
        check_allowed(name, Settings(model="/models/mine-too"))
    assert caught.value.code == "model_not_allowed"
    assert {model for model in DEFAULT_MODELS if model not in str(caught.value)} == set()
    assert "mine-too" not in str(caught.value), "a client learns nothing of this machine's folders"


def test_the_operators_own_models_are_always_allowed() -> None:
    endpoints = ("he:model=our/hebrew", "plain")
    settings = Settings(
        model="/models/mine", endpoints=endpoints, preload_models=("our/warm",), allowed_models=("tiny",)
    )
    assert allowed_models(settings) == ("/models/mine", "our/hebrew", "our/warm", "tiny")
    for name in allowed_models(settings):
        check_allowed(name, settings)
    # The list is in place of the default one.
    with pytest.raises(ModelNotAllowed):
        check_allowed("base", settings)


def test_models_are_added_to_the_default_list_or_none_is_refused() -> None:
    added = Settings(allowed_models=("default", "our/model"))
    check_allowed("our/model", added)
    check_allowed("base", added)
    with pytest.raises(ModelNotAllowed, match="our/model"):
        check_allowed("their/model", added)
    check_allowed("their/model", Settings(allowed_models=("*",)))


def test_a_model_in_the_model_dir_is_allowed(tmp_path: Path) -> None:
    make_model(tmp_path / "models" / "mine")
    make_model(tmp_path / "beside")
    (tmp_path / "models" / "no-model").mkdir()
    settings = Settings(model_dir=tmp_path / "models")
    check_allowed("mine", settings)
    check_allowed("owner/mine", settings)
    for name in ("no-model", "../beside", str(tmp_path / "models" / "mine")):
        with pytest.raises(ModelNotAllowed):
            check_allowed(name, settings)


def test_english_only_by_name() -> None:
    assert is_english_only("tiny.en")
    assert is_english_only("Systran/faster-whisper-tiny.en")
    assert not is_english_only("tiny")
    assert not is_english_only("my.env/whisper")


@pytest.mark.parametrize(
    ("name", "language", "task", "multilingual", "error"),
    [
        ("tiny.en", "en", "transcribe", False, None),
        ("tiny.en", None, "transcribe", False, None),
        ("tiny.en", "", "transcribe", False, None),
        ("tiny.en", "he", "transcribe", False, ModelLanguage),
        ("tiny.en", "en", "translate", False, ModelLanguage),
        ("tiny.en", None, "transcribe", True, ModelLanguage),
        ("tiny.en", "klingon", "transcribe", False, InvalidInput),
        ("tiny", "he", "translate", True, None),
        ("tiny", "EN", "transcribe", False, InvalidInput),
    ],
)
def test_check_language(
    name: str, language: str | None, task: str, multilingual: bool, error: type[LonghandError] | None
) -> None:
    if error is None:
        check_language(name, language, task, multilingual)
    else:
        with pytest.raises(error):
            check_language(name, language, task, multilingual)


def test_languages_are_whispers() -> None:
    assert len(LANGUAGES) == 100
    assert {"en", "he", "iw", "haw", "yue"} & LANGUAGES == {"en", "he", "haw", "yue"}


def test_the_engine_that_runs_is_named() -> None:
    assert engine_of(Settings()) == "faster-whisper"
    assert engine_of(Settings(engine="mine:Engine")) == "mine:Engine"
