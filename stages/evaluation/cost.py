"""How much of full supervision's AP the labels keep, and what else belongs beside their cost."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from stages.evaluation.records import Metrics, Record
from stages.runtime.errors import UserError
from stages.runtime.files import is_finite, read_json, write_json

PROTOCOLS = ("voc", "coco", "lvis")
"""Keys of the metrics that hold AP; ``lvis`` is there on federated truth only."""


def used(detector: Record) -> Metrics:
    """The detector's settings without those of the engine that does not run."""
    engines = {"detectron2", "torchvision"} - {detector.get("engine", "detectron2")}
    return {key: value for key, value in detector.items() if key not in engines}


def said_of_proposals(proposals: Record) -> Metrics:
    """Who made a method's proposals, by the keys that stand beside its annotation time; nothing without proposals."""
    return {"proposals" if name == "provider" else f"proposals_{name}": value for name, value in proposals.items()}


def reference_key(truth: Path, settings: Record) -> str:
    """12 hexadecimal digits that agree for runs whose detectors may be compared: same truth, data and detector."""
    digest = hashlib.blake2b(digest_size=6)
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(truth.read_bytes())
    return digest.hexdigest()


def _known(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """What :func:`remember_reference` has noted so far.

    Raises:
        UserError: the file holds something else.
    """
    known = read_json(path) if path.exists() else {}
    if not isinstance(known, dict) or not all(
            isinstance(figures, dict) and all(isinstance(values, dict) and all(map(is_finite, values.values()))
                                              for values in figures.values()) for figures in known.values()):
        raise UserError(f"{path}: figures of runs with method: masks were expected; delete the file, and run that "
                        f"method again")
    return known


def remember_reference(path: Path, key: str, metrics: Record) -> None:
    """Note the AP of a fully supervised run under its key; other keys stay."""
    known = _known(path)
    known[key] = {protocol: metrics[protocol] for protocol in PROTOCOLS if protocol in metrics}
    write_json(path, dict(sorted(known.items())), indent=2)


def retention(path: Path, key: str, metrics: Record) -> Metrics:
    """AP as a percentage of full supervision's AP, by the names of the figures; or the reason why not."""
    known = _known(path)
    if key not in known:
        reason = ("no run with method: masks on this data with this detector yet" if not known else
                  f"{path} holds runs with method: masks, none on this data with this detector ({key})")
        return {"available": 0, "reason": f"{reason}; run it once, then this method again"}
    result: Metrics = {"available": 1}
    for protocol in PROTOCOLS:
        if protocol in metrics and protocol in known[key]:
            result[protocol] = {name: round(100.0 * metrics[protocol][name] / full, 3)
                                for name, full in known[key][protocol].items()
                                if full > 0 and name in metrics[protocol]}
    return result
