"""The multilingual model and a voice for it; `make test-multilingual` downloads both."""

from collections.abc import Callable
from functools import cache

import pytest

from tasks.engine import FasterWhisperEngine
from tasks.settings import Settings
from tasks.windows import Audio
from tests.multilingual import assets
from tests.multilingual.synthesis import Synthesiser

Say = Callable[[str], Audio]


@pytest.fixture(scope="session", autouse=True)
def _made() -> None:
    if not assets.is_made():
        pytest.skip("the multilingual model is not there: run `make test-multilingual`")


@pytest.fixture(scope="session")
def engine() -> FasterWhisperEngine:
    return FasterWhisperEngine(Settings(device="cpu", model_dir=assets.MODELS))


@pytest.fixture(scope="session")
def say() -> Say:
    """Synthesised speech by the code of its language."""
    return cache(Synthesiser().say)
