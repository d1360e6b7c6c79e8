"""Remove a damaged .dvc/tmp/rwlock or dvc.lock: `python -m pipelines.mend [folder]`.

DVC writes both in place, so that a SIGKILL in the wrong millisecond leaves them empty or cut, and every later
`dvc repro` refuses ("JSON structure is corrupted", "is not valid"). The first only says which files running stages read
and write; what the second says, DVC finds again in its run cache. So where no DVC runs in the folder nothing is lost.
A file that is whole, or with a DVC running, stays as it is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import yaml
from dvc.lock import LockError, make_lock
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK


def mend(folder: str | Path) -> str:
    """Remove what is damaged of DVC's own files in ``folder`` if no DVC runs there.

    Returns:
        A line per file that says what was done or why nothing was; empty if there was nothing to mend.
    """
    temporary = Path(folder).resolve() / ".dvc" / "tmp"
    damaged = _damaged(folder)
    if not damaged:
        return ""
    running = next(dvc_processes(folder), None)
    if running is not None:
        return "\n".join(f"{path}: damaged, but DVC runs here (process {running}); it stays as it is"
                         for path in damaged)
    try:
        # DVC holds this lock while it rewrites its files: one that starts just now cannot be disturbed.
        with make_lock(str(temporary / RWLOCK_LOCK), tmp_dir=str(temporary)):
            damaged = _damaged(folder)
            for path in damaged:
                path.unlink(missing_ok=True)
    except LockError:
        return "\n".join(f"{path}: damaged, but a DVC that has just started holds it; it stays as it is"
                         for path in damaged)
    return "\n".join(f"{path}: was damaged (a killed DVC leaves it so); removed" for path in damaged)


def _damaged(folder: str | Path) -> list[Path]:
    """DVC's own files that are not what they should be."""
    root = Path(folder).resolve()
    locks = [root / "dvc.lock", *sorted(root.glob("pipelines/*/dvc.lock"))]
    found = [root / ".dvc" / "tmp" / RWLOCK_FILE, *locks]
    return [path for path in found if path.exists() and not _is_whole(path)]


def dvc_processes(folder: str | Path) -> Iterator[int]:
    """Ids of the processes that run DVC in ``folder``: in its own repository, not in one that lies below or above."""
    root = Path(folder).resolve()
    for process in psutil.process_iter():
        try:
            if _runs_dvc(process.cmdline()) and _may_be_in(process, root):
                yield process.pid
        except psutil.Error:  # it has ended, or it is the system's own
            continue


def _may_be_in(process: psutil.Process, root: Path) -> bool:
    """Whether a process works in the repository ``root``; of somebody else's process that is not known, so it may."""
    try:
        return _repository(Path(process.cwd())) == root
    except psutil.AccessDenied:
        return True


def _runs_dvc(words: Sequence[str]) -> bool:
    """Whether a command line is DVC's: `dvc ...`, `python .../dvc ...`, `python -m dvc ...`."""
    place = next((number for number, word in enumerate(words[:3]) if Path(word).name in ("dvc", "dvc.exe")), None)
    # `dvc daemon` is its messenger in the background: it locks nothing.
    return place is not None and list(words[place + 1:place + 2]) != ["daemon"]


def _repository(folder: Path) -> Path | None:
    """The nearest folder at or above ``folder`` that holds a `.dvc`."""
    return next((place for place in (folder, *folder.parents) if (place / ".dvc").is_dir()), None)


def _is_whole(path: Path) -> bool:
    """Whether a file is JSON, or a lock file of stages; one that is gone, or cannot be read, is not ours to mend."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".lock":
            return "stages" in (yaml.safe_load(text) or {})
        json.loads(text)
    except OSError:
        return True
    except (json.JSONDecodeError, UnicodeDecodeError, yaml.YAMLError, TypeError):
        return False
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(),
                        help="folder in which DVC runs (default: this one)")
    message = mend(parser.parse_args().folder)
    if message:
        print(message)


if __name__ == "__main__":
    main()
