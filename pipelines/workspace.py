"""Runs apart from the user's own: a workspace has its own params.yaml, dvc.lock and data, and the clone's DVC cache."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import yaml

from pipelines.mend import mend
from pipelines.settings import load_params
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_text
from stages.runtime.stage import kill_descendants

ROOT = Path(__file__).resolve().parents[1]
Tree = dict[str, Any]
"""A nested mapping, as params.yaml and the files of results hold it."""


def changed(params: Mapping[str, object], changes: Mapping[str, object]) -> Tree:
    """A copy of ``params`` with the values at dotted paths replaced, e.g. ``{"irnet.cams.flip": False}``.

    Raises:
        UserError: a path leads through something that is no section.
    """
    copy: Tree = json.loads(json.dumps(params))
    for path, value in changes.items():
        *sections, key = path.split(".")
        place = copy
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UserError(f"{path}: {section} is not a section")
        place[key] = value
    return copy


@dataclass(frozen=True)
class Reproduced:
    """What a ``dvc repro`` did.

    Attributes:
        seconds: that it took.
        ran: names of the stages that ran; the others were up to date, or came out of the cache.
    """

    seconds: float
    ran: tuple[str, ...] = ()


class Watcher(Protocol):
    """Who wants to know what a ``dvc repro`` is about.

    Attributes:
        environment: further variables for its stages.
    """

    environment: Mapping[str, str]

    def started(self, pid: int) -> None:
        """DVC runs, as this process."""

    def running(self, stage: str) -> None:
        """A stage begins: its name, with its dvc.yaml where that is not the workspace's own."""

    def ended(self) -> None:
        """DVC has ended."""


class Workspace:
    """A folder ``.work/workspaces/<name>`` in which DVC runs; its results are kept, so that a second run is short.

    Args:
        name: of the folder.
        own_cache: DVC's cache is one of the workspace itself, not the clone's, and is removed with it.
    """

    def __init__(self, name: str, own_cache: bool = False) -> None:
        self.folder = ROOT / ".work" / "workspaces" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        for part in ("stages", "pipelines"):
            _mirror(ROOT / part, self.folder / part)
        shutil.copy2(ROOT / "dvc.yaml", self.folder / "dvc.yaml")
        shutil.copy2(ROOT / ".dvcignore", self.folder / ".dvcignore")
        if not (self.folder / ".dvc").exists():
            self._dvc("init", "--no-scm", "--quiet")
            self._dvc("config", "core.analytics", "false", "--quiet")
            self._dvc("config", "core.check_update", "false", "--quiet")
        # One cache for the clone and its workspaces: a stage that ran with the same inputs is never run twice.
        cache = self.folder / ".dvc" / "cache" if own_cache else _cache()
        self._dvc("cache", "dir", "--local", "--quiet", str(cache))

    def _dvc(self, *words: str) -> None:
        if subprocess.run(self._command(*words), cwd=self.folder, env=_environment(), check=False).returncode:
            raise UserError(f"`dvc {words[0]}` failed in {self.folder}; its messages are above")

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "dvc", *words]

    def reproduce(self, params: Mapping[str, object], *targets: str, log: Path | None = None,
                  watcher: Watcher | None = None) -> Reproduced:
        """Write params.yaml and bring ``targets`` up to date.

        Args:
            params: content of params.yaml.
            targets: stages as DVC names them.
            log: file to which all messages are added; without it they go to the terminal.
            watcher: is told what happens.

        Raises:
            UserError: settings that are wrong, or a stage that failed; with a log, its last error and its path.
        """
        write_text(self.folder / "params.yaml", yaml.safe_dump(dict(params), sort_keys=False))
        load_params(self.folder / "params.yaml")
        mended = mend(self.folder)
        if mended:
            print(mended, flush=True)
        started, ran = time.monotonic(), []
        with ExitStack() as stack:
            file, before = None, 0
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(log.open("a", encoding="utf-8"))
                before = log.stat().st_size  # what an earlier run says there is not this one's
            # Progress bars, on standard error, stay on the terminal where they know how to draw themselves.
            process = stack.enter_context(subprocess.Popen(
                self._command("repro", *targets), cwd=self.folder,
                env={**_environment(), **(watcher.environment if watcher else {})}, stdout=subprocess.PIPE,
                stderr=file, encoding="utf-8", errors="replace"))
            if watcher:
                watcher.started(process.pid)
                stack.callback(watcher.ended)
            for line in process.stdout or ():
                print(line, end="", file=file, flush=True)
                found = re.match(r"Running stage '([^']+)'", line)
                ran += [found[1].rpartition(":")[2]] if found else []
                if found and watcher:
                    watcher.running(found[1])
        if process.returncode and log is not None:
            raise UserError(f"`dvc repro` failed: {last_error(log.read_bytes()[before:].decode('utf-8', 'replace'))}\n"
                            f"(all its messages: {log})")
        if process.returncode:
            raise UserError(f"`dvc repro` failed in {self.folder}; its messages are above")
        return Reproduced(time.monotonic() - started, tuple(ran))

    def read(self, path: str) -> Tree:
        """A JSON file of the workspace."""
        return read_json(self.folder / path)


def end_with_descendants(number: int, _: object) -> None:
    """End with all that was started, on a signal: Python alone would leave a DVC behind, which runs on and locks its
    workspace."""
    kill_descendants(os.getpid())
    os._exit(128 + number)


def _environment() -> dict[str, str]:
    """For DVC and its stages: this Python's programs first, no other code, and messages in the order of the events."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": "", "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def last_error(messages: str) -> str:
    """The line that says why a ``dvc repro`` failed: a stage's own error before DVC's, which names the stage only."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", messages) if line.strip()]
    for pattern in (r"error: |[\w.]+(Error|Exception|Interrupt|Exit)\b", r"ERROR: ", ""):
        found = [line for line in lines if re.match(pattern, line)]
        if found:
            return found[-1]
    return "it said nothing"


def _mirror(source: Path, target: Path) -> None:
    """Make ``target`` a copy of ``source``; files that are equal keep their times, and dvc.lock is each one's own."""
    wanted = _files(source)
    if target.exists():
        for name in sorted(_files(target) - wanted):
            (target / name).unlink()
        for path in sorted((item for item in target.rglob("*") if item.is_dir()), reverse=True):
            if not any(item.name != "__pycache__" for item in path.iterdir()):
                shutil.rmtree(path)
    for name in sorted(wanted):
        content = (source / name).read_bytes()
        destination = target / name
        if not destination.exists() or destination.read_bytes() != content:
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_bytes(content)


def _files(folder: Path) -> set[Path]:
    """What there is to mirror in a folder, as paths from it."""
    return {path.relative_to(folder) for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.name != "dvc.lock"}


def _cache() -> Path:
    """The clone's cache folder, wherever its own configuration puts it."""
    result = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], cwd=ROOT, capture_output=True, text=True,
                            check=False)
    return Path(result.stdout.strip()) if result.returncode == 0 else ROOT / ".dvc" / "cache"


def look_up(content: object, path: str) -> float | None:
    """The number at a dotted path, or nothing where there is none."""
    for part in path.split("."):
        if not isinstance(content, Mapping) or part not in content:
            return None
        content = content[part]
    return float(content) if isinstance(content, (int, float)) else None


def provenance(params: Mapping[str, object], seeds: Sequence[int] | None = None) -> Tree:
    """What a table of results was made with: settings, versions, machine, the seed, or the ``seeds`` in its place."""
    packages = ("torch", "torchvision", "timm", "numpy", "dvc")
    settings = {key: value for key, value in params.items() if key != "seed" or seeds is None}
    chosen = {"seed": params.get("seed")} if seeds is None else {"seeds": list(seeds)}
    return {"settings": settings, **chosen, "cores": os.cpu_count(),
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}}
