"""A small chain that was run once, with tags and with points; tests copy what they change."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_chain import POINTS, STAGES, prepare, run


@pytest.fixture(scope="session")
def tags(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tags")
    prepare(folder)
    for stage in STAGES:
        run(f"pipelines.bestie.{stage}", folder)
    return folder


@pytest.fixture(scope="session")
def points(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    prepare(folder)
    for stage in STAGES:
        run(f"pipelines.bestie.{stage}", folder, **POINTS)
    return folder
