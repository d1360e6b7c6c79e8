"""Fixtures of the detector's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from detector_scenes import TINY, write_dataset

from stages.detector.settings import DetectorSettings


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_dataset()
    return tmp_path


@pytest.fixture
def tiny() -> DetectorSettings:
    return DetectorSettings.model_validate(TINY)
