"""What several tests of the trainer share."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `tiny_training`, whose network and lesson are known by name during the test."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import tiny_training

    tiny_training.register(monkeypatch.setitem)
    return tiny_training
