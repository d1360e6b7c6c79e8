"""The whole of params.yaml: what every method and every common stage reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.baseline.settings import BaselineSettings
from pipelines.bestie.settings import BestieSettings
from pipelines.exits.settings import ExitsSettings
from pipelines.irnet.settings import IRNetSettings
from pipelines.panoptic.settings import PanopticSettings
from pipelines.wise.settings import WiseSettings
from stages.detector.settings import DetectorSettings
from stages.evaluation.settings import EvaluateSettings, ReportSettings, ScoreSettings
from stages.prepare.settings import AnnotationSettings, DatasetSettings
from stages.proposals.settings import ProposalSettings
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.settings import RuntimeSettings, nearest, read_yaml, validate

# A method's name is its folder's name; those without settings of their own have no section.
METHODS: dict[str, Any] = {
    "baseline": BaselineSettings, "bestie": BestieSettings, "exits": ExitsSettings, "irnet": IRNetSettings,
    "masks": None, "panoptic": PanopticSettings, "wise": WiseSettings,
}

# What each method learns from; any of a group will do, the first is what it is made for.
SUPERVISION: dict[str, list[tuple[str, ...]]] = {
    "baseline": [("extreme_points", "boxes")], "bestie": [("tags",)], "exits": [("extreme_points", "boxes")],
    "irnet": [("tags",)], "masks": [], "panoptic": [("boxes",), ("tags",)], "wise": [("points", "tags")],
}

# Semantic maps that BESTIE takes from the chain of another method, if `bestie.maps.folder` names its folder: of things
# alone, which the panoptic method's are not.
SEMANTIC_MAPS = {layout.method_data(method) / "semantic": method for method in ("irnet", "wise")}
# Class boundaries that proposals take from the chain of IRNet, if `proposals.maps.boundary` names this folder.
IRNET_FIELDS = layout.method_data("irnet") / "fields"

SECTIONS: dict[str, Any] = {
    "method": str, "seed": int, "runtime": RuntimeSettings, "dataset": DatasetSettings,
    "annotations": AnnotationSettings, "proposals": ProposalSettings,
    **{name: kind for name, kind in METHODS.items() if kind is not None},
    "detector": DetectorSettings, "score": ScoreSettings, "evaluate": EvaluateSettings, "report": ReportSettings,
}


def load_params(path: Path) -> SimpleNamespace:
    """Parse and check a whole params.yaml.

    Raises:
        UserError: an unknown method or section, or anything that a section's own model refuses.
    """
    return checked_params(path, read_yaml(path))


def checked_params(path: Path, content: Mapping[str, Any]) -> SimpleNamespace:
    """The settings of a params.yaml's ``content``, which is called ``path`` in errors, those of :func:`load_params`."""
    for key in content:
        if key not in SECTIONS:
            raise UserError(f"{path}: {key}: unknown section{nearest(str(key), list(SECTIONS))}"
                            f" (allowed: {', '.join(SECTIONS)})")
    settings = validate(path, content, SECTIONS)
    if settings.method not in METHODS:
        raise UserError(f"{path}: method: unknown method {settings.method!r}"
                        f"{nearest(settings.method, list(METHODS))} (allowed: {', '.join(METHODS)})")
    given = settings.annotations.kinds
    maker = maps_maker(settings.method, settings.bestie.maps.folder)
    for method in (settings.method, *([maker] if maker else [])):
        for group in SUPERVISION[method]:
            if not set(group) & set(given):
                reason = "" if method == settings.method else f", whose maps {settings.method} takes,"
                raise UserError(f"{path}: annotations.kinds: method {method}{reason} needs {' or '.join(group)}, "
                                f"found {', '.join(given)}")
    if settings.method == "bestie" and settings.bestie.cues.source == "points" and "points" not in given:
        raise UserError(f"{path}: annotations.kinds: bestie.cues.source is points, which needs points beside tags, "
                        f"found {', '.join(given)}; write [tags, points], or bestie.cues.source: peaks")
    if "wise" in (settings.method, maker) and settings.wise.cues.source == "points" and "points" not in given:
        raise UserError(f"{path}: annotations.kinds: wise.cues.source is points, found {', '.join(given)}; write "
                        f"[points], or wise.cues.source: peaks, which needs tags alone")
    return settings


def methods_run(settings: SimpleNamespace) -> list[str]:
    """The methods whose chains run, in their order: the chosen one, and before it what it builds on."""
    return [*taken(settings), settings.method]


def taken(settings: SimpleNamespace) -> dict[str, list[Path]]:
    """What the chosen method takes from the chains of others: those methods, in their order, and the folders that
    their stages make."""
    found: dict[str, list[Path]] = {}
    folder = Path(settings.bestie.maps.folder)
    maker = maps_maker(settings.method, folder)
    if maker:
        found[maker] = [folder]
    if (any(wants_proposals(method) for method in [*found, settings.method])
            and Path(settings.proposals.maps.boundary) == IRNET_FIELDS):
        found = {"irnet": [*found.pop("irnet", []), IRNET_FIELDS], **found}
    return found


def maps_maker(method: str, folder: Path | str) -> str | None:
    """The method whose chain makes the semantic maps that another one takes from a folder, if there is any."""
    return SEMANTIC_MAPS.get(Path(folder)) if method == "bestie" else None


def wants_proposals(method: str, root: Path = Path()) -> bool:
    """Does a stage of the method, in the clone at ``root``, depend on the proposals?"""
    own = read_yaml(root / "pipelines" / method / "dvc.yaml")["stages"]
    return any("data/proposals" in stage["deps"] for stage in own.values())


def with_method(params: Mapping[str, Any], method: str) -> dict[str, Any]:
    """``params`` for another method: with the labels that it is made for, unless those that are there will do. A mix of
    weak and full labels stays one."""
    given = params["annotations"]["kinds"]
    bestie = params.get("bestie", {})
    maker = maps_maker(method, bestie.get("maps", {}).get("folder", ""))
    kinds = [kind for name in (method, maker) if name is not None for kind in _kinds(name, params)]
    if method == "bestie" and bestie.get("cues", {}).get("source") == "points":
        kinds.append("points")
    kinds = list(dict.fromkeys(kinds))
    if kinds and "masks" in given and params["annotations"].get("masked_images", 1) != 1:
        kinds.append("masks")
    return {**params, "method": method, "annotations": {**params["annotations"], "kinds": kinds or given}}


def _kinds(method: str, params: Mapping[str, Any]) -> list[str]:
    """The labels that a method is made for, or what will do of those that ``params`` have."""
    if method == "wise":
        return ["tags"] if params["wise"].get("cues", {}).get("source") == "peaks" else ["points"]
    given = params["annotations"]["kinds"]
    return [next((kind for kind in group if kind in given), group[0]) for group in SUPERVISION[method]]
