"""Unfinished work that survives: DVC deletes a stage's outputs before it runs the stage again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from pydantic import BaseModel

from stages.runtime import distributed, layout
from stages.runtime.errors import UserError
from stages.runtime.files import TEMPORARY
from stages.runtime.fingerprint import fingerprint, module_of

Results = Mapping[str, str | Path]


def _plain(value: object) -> object:
    """Settings, paths and mappings as what JSON can hold."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _add_file(digest: hashlib.blake2b, path: Path, name: str) -> None:
    """A file's content where that is cheap; else its size and time of change, which a restart keeps."""
    status = path.stat()
    digest.update(f"{name}\0{status.st_size}\0".encode())
    if status.st_size <= 4 << 20:
        digest.update(path.read_bytes())
    else:
        digest.update(str(status.st_mtime_ns).encode())


def name_of(file: str | Path) -> str:
    """A stage's name in `.work` and in messages: `irnet-infer_cams` for pipelines/irnet/infer_cams.py, `score` for
    stages/evaluation/score.py."""
    *folders, name = module_of(file).split(".")
    return f"{folders[-1]}-{name}" if folders[0] == "pipelines" else name


def digest_of(file: str | Path, inputs: Sequence[str | Path], parameters: object) -> str:
    """16 hexadecimal digits that change with the inputs, the parameters or the code that a stage runs.

    Folders count by the names, sizes and times of their files, the code by its fingerprint: results of two versions are
    never mixed, and a mended comment does not start a training anew.
    """
    digest = hashlib.blake2b(digest_size=8)
    module = module_of(file)
    digest.update(json.dumps([module, fingerprint(module), _plain(parameters)], sort_keys=True).encode())
    for path in map(Path, inputs):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; {name_of(file)} needs it (`dvc repro` makes it)")
        if path.is_file():
            _add_file(digest, path, str(path))
            continue
        for item in sorted(item for item in path.rglob("*") if item.is_file()):
            status = item.stat()
            digest.update(f"{item}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


class Work:
    """A stage's work folder, ``.work/<stage>-<digest>``: the same folder whenever the same work is taken up again.

    Use it as a context manager: it locks the folder, removes leftovers of other versions of the stage, and on
    ``publish`` moves results to where DVC expects them. After an error or a kill the folder stays for the next run.

    Args:
        file: ``__file__`` of the stage's module.
        inputs: files and folders that the work depends on.
        parameters: settings that the work depends on; anything that JSON can hold, or models.
        root: folder of all work.
        patience_seconds: how long another process is waited for [s].
        part: of the stage, where it does several pieces of work: each has a folder and a lock of its own, and may be
            taken up while the stage's own is open.
    """

    def __init__(self, file: str | Path, inputs: Sequence[str | Path], parameters: object, root: Path = layout.WORK,
                 patience_seconds: float = 20.0, part: str = "") -> None:
        self.patience_seconds = patience_seconds
        self.stage = f"{name_of(file)}-{part}" if part else name_of(file)
        self.root = root
        self.folder = root / f"{self.stage}-{digest_of(file, inputs, parameters)}"
        self._lock: IO[str] | None = None
        self._published = False

    def __enter__(self) -> Work:
        if distributed.rank() > 0:  # rank 0 owns the folder; the others only read and write inside it
            self.folder.mkdir(parents=True, exist_ok=True)
            return self
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = _acquire(self.root / f"{self.stage}.lock", self.stage, self.patience_seconds)
        # The name is matched whole: another stage's may begin like this one's.
        leftovers = self.root.glob(f"{self.stage}-{'[0-9a-f]' * 16}")
        for leftover in sorted(leftovers):
            if leftover != self.folder:
                shutil.rmtree(leftover, ignore_errors=True)
        if self.folder.exists():
            print(f"{self.stage}: going on with the work in {self.folder}", file=sys.stderr)
            for unfinished in self.folder.rglob(f"{TEMPORARY}*.tmp*"):  # other names are results, whatever they are
                shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        self.folder.mkdir(exist_ok=True)
        return self

    def path(self, name: str) -> Path:
        """A path inside the work folder."""
        return self.folder / name

    def subfolder(self, name: str) -> Path:
        """A folder inside the work folder, made if needed."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, results: Results) -> None:
        """Move ``{name in the work folder: destination}`` into place; the rest of the folder is then deleted."""
        if distributed.rank() > 0:
            return
        for name, destination in results.items():
            source, destination = self.folder / name, Path(destination)
            if not source.exists():
                raise FileNotFoundError(f"{self.stage}: {source} was to be published and does not exist")
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.is_dir() and not destination.is_symlink():
                shutil.rmtree(destination)
            elif destination.exists():
                destination.unlink()
            shutil.move(str(source), str(destination))
        self._published = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._published and kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def _acquire(path: Path, stage: str, patience_seconds: float) -> IO[str]:
    """Lock ``path`` for this process; the kernel lets go of it when the process ends, however it ends.

    Waits a little, because an orphan of a killed run may still be on its way out.
    """
    handle = path.open("a+")
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                handle.close()
                raise UserError(f"{path}: {stage} is already being run here by process {owner}; "
                                f"wait for it or end it") from None
            time.sleep(0.25)
    handle.seek(0)
    handle.truncate()
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
