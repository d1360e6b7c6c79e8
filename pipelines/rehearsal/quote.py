"""What a rehearsal that ran on this device says of a run, for `check`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pipelines.rehearsal import BUSY, FOLDER
from pipelines.settings import checked_params, methods_run, wants_proposals
from stages.runtime.errors import UserError
from stages.runtime.files import read_json
from stages.runtime.fingerprint import CODE, tokens


@dataclass(frozen=True)
class Quote:
    """Seconds and bytes of the full run, and the file that says so."""

    seconds: float
    bytes: float
    path: Path


def device_name(device: torch.device) -> str:
    """What figures of time and memory belong to: the GPU's name, or the processor's and the number of its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), device.type)
    return f"{os.cpu_count()} cores of {model}"


_TELLING = ("pipelines/rehearsal/projection.py", "pipelines/rehearsal/shortened.py", "pipelines/rehearsal/watch.py",
            "stages/runtime/progress.py")


def code() -> str:
    """Digest of the code that times the stages and says what that means for the full run, not of all that ran."""
    found = [token for name in _TELLING for token in tokens((CODE / name).read_text(encoding="utf-8"))]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def quote(settings: SimpleNamespace, device: torch.device, images: int, folder: Path = FOLDER) -> Quote | None:
    """The full run's figures, if these very settings were rehearsed on such a device, by this very code, for about as
    many training images."""
    for path in sorted(folder.glob(f"*-{settings.method}.json")):
        found = _read(path)
        if found is None or found["run"]["device"] != device_name(device) or found["run"]["busy"] > BUSY \
                or found["run"].get("code") != code() or abs(found["full"]["train_images"] - images) > 0.1 * images:
            continue
        try:
            rehearsed = checked_params(path, found["run"]["settings"])
        except UserError:  # of another version of the project
            continue
        if told_by(rehearsed) == told_by(settings):
            full = found["full"]
            return Quote(3600 * full["hours"], 1e9 * full["disk_gb"], path)
    return None


def _read(path: Path) -> Any:
    """A file of a rehearsal that tells of the full run, or None."""
    try:
        found = read_json(path)
        told = ({"hours", "disk_gb", "train_images"} <= set(found["full"])
                and {"device", "busy", "settings"} <= set(found["run"]))
        return found if told else None
    except (UserError, KeyError, TypeError):
        return None


def told_by(settings: SimpleNamespace) -> dict[str, Any]:
    """What of the settings decides how long a run takes."""
    detector = settings.detector
    return {**{method: getattr(settings, method, None) for method in methods_run(settings)},
            "annotations": settings.annotations, "precision": settings.runtime.precision,
            "processes": settings.runtime.processes, "workers": settings.runtime.workers,
            "dataset": settings.dataset.model_dump(exclude={"root", "sbd"}),
            "proposals": settings.proposals if any(map(wants_proposals, methods_run(settings))) else None,
            "detector": (detector.engine, detector.train, detector.predict, getattr(detector, detector.engine))}
