"""The whole of params.yaml: what every method and every common stage reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.irnet.settings import IRNetSettings
from stages.detector.settings import DetectorSettings
from stages.evaluation.settings import EvaluateSettings, ReportSettings, ScoreSettings
from stages.prepare.settings import AnnotationSettings, DatasetSettings
from stages.runtime.errors import UserError
from stages.runtime.settings import RuntimeSettings, nearest, read_yaml, validate

# A method's name is its folder's name; those without settings of their own have no section.
METHODS: dict[str, Any] = {"irnet": IRNetSettings, "masks": None}

# What each method learns from; any of a group will do.
SUPERVISION: dict[str, list[set[str]]] = {"irnet": [{"tags"}], "masks": []}

SECTIONS: dict[str, Any] = {
    "method": str, "seed": int, "runtime": RuntimeSettings, "dataset": DatasetSettings,
    "annotations": AnnotationSettings, **{name: kind for name, kind in METHODS.items() if kind is not None},
    "detector": DetectorSettings, "score": ScoreSettings, "evaluate": EvaluateSettings, "report": ReportSettings,
}


def load_params(path: Path) -> SimpleNamespace:
    """Parse and check a whole params.yaml.

    Raises:
        UserError: an unknown method or section, or anything that a section's own model refuses.
    """
    content = read_yaml(path)
    for key in content:
        if key not in SECTIONS:
            raise UserError(f"{path}: {key}: unknown section{nearest(str(key), list(SECTIONS))}"
                            f" (allowed: {', '.join(SECTIONS)})")
    settings = validate(path, content, SECTIONS)
    if settings.method not in METHODS:
        raise UserError(f"{path}: method: unknown method {settings.method!r}"
                        f"{nearest(settings.method, list(METHODS))} (allowed: {', '.join(METHODS)})")
    for group in SUPERVISION[settings.method]:
        if not group & set(settings.annotations.kinds):
            raise UserError(f"{path}: annotations.kinds: method {settings.method} needs {' or '.join(sorted(group))}, "
                            f"found {', '.join(settings.annotations.kinds)}")
    return settings
