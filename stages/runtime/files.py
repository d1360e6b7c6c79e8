"""Reading and writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stages.runtime.errors import UserError

TEMPORARY = ".weakmask-"
"""How the names of unfinished files begin; whatever has another name is the user's."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends without an error.

    The temporary name keeps the suffix, because writers such as OpenCV choose the format by it. It is short: the name
    itself may be as long as the file system takes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{zlib.crc32(os.fsencode(path.stem)):08x}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object, indent: int | None = None) -> None:
    """Write JSON, atomically; NaN and infinities are refused because other JSON readers refuse them."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; what Python's reader would take beyond the standard, NaN and keys given twice, is refused.

    Raises:
        UserError: the file is missing or not JSON; the message names the file and the place in it.
    """
    path = Path(path)
    try:
        return STRICT.decode(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a JSON file was expected") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file (byte {error.start}); a JSON file was expected") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON of this project: lists or objects are nested too deeply") from None
    except ValueError as error:  # ours, or a number of thousands of digits, with advice how to let Python read it
        raise UserError(f"{path}: not valid JSON ({str(error).partition('; use sys.')[0]})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, refused where a key appears twice: of two values the last would win in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} appears twice in one object: {', '.join(map(repr, keys[:8]))}")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON has")


STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""Reads what the standard calls JSON, with every key once."""


def is_finite(value: object) -> bool:
    """Whether a value is a number that a float holds: JSON has integers of hundreds of digits, and no truth value is
    a number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write arrays into one compressed ``.npz``, atomically."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` (pickled objects are refused).

    Raises:
        UserError: the file is missing, damaged, encrypted or packed in a way that this project does not write.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the stage that writes it has not run") from None
    except Exception as error:  # damage shows in NumPy, zipfile, zlib and struct, as errors of a dozen types
        reason = str(error)
        if "Object arrays" in reason:
            reason = "it holds Python objects, which are not read"
        elif "pickle" in reason:  # NumPy takes whatever it does not know for a pickle, and says how to execute it
            reason = "it is no archive of arrays"
        raise UserError(f"{path}: cannot be read as .npz ({reason}); delete it and run `dvc repro` again") from None
