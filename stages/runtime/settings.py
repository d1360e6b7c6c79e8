"""Strict settings: ``params.yaml`` in, frozen pydantic models out, every mistake a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stages.runtime.errors import UserError, summarise


class Settings(BaseModel):
    """Base of all settings: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class RuntimeSettings(Settings):
    """How the work is run; nothing here changes what comes out (beyond rounding on another device)."""

    device: str = Field("auto", description="torch device: auto, cpu, cuda, cuda:1, mps (not in the papers)")
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = Field(
        "32-true", description="number format of training, as Lightning Fabric names it (not in the papers)")
    processes: int = Field(1, ge=1, description="training processes (DDP), one per GPU [processes] (not in the papers)")
    workers: int = Field(0, ge=0, description="processes for per-image work; 0 = one per core (not in the papers)")
    backend: Literal["loky", "dask", "ray"] = Field(
        "loky", description="joblib backend of the per-image work; dask and ray are extras (not in the papers)")
    checkpoint_seconds: float = Field(
        60.0, gt=0, description="longest training time between two checkpoints [s] (not in the papers)")


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: missing, not YAML, a key twice, or not a mapping; file and line are named.
    """
    path = Path(path)
    try:
        content = _UniqueKeyLoader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy one from pipelines/presets/") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{path}{place}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a mapping of sections was expected, found {type(content).__name__}")
    return content


def nearest(word: str, allowed: Sequence[str]) -> str:
    """A hint with the closest allowed spelling, or an empty string."""
    close = difflib.get_close_matches(str(word), [str(item) for item in allowed], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _fields_at(kind: Any, location: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model that holds the last part of ``location``."""
    for part in location[:-1]:
        field = getattr(kind, "model_fields", {}).get(part)
        if field is None:
            return []
        kind = field.annotation
        options = [item for item in getattr(kind, "__args__", ()) if hasattr(item, "model_fields")]
        kind = options[0] if options else kind
    return sorted(getattr(kind, "model_fields", {}))


def _sentence(path: Path, section: str, kind: Any, error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join([section, *location])
    if error["type"] == "extra_forbidden":
        fields = _fields_at(kind, error["loc"])
        return (f"{path}: {key}: unknown key{nearest(location[-1], fields)}"
                f" (allowed: {', '.join(fields) or 'none'})")
    if error["type"] == "missing":
        return f"{path}: {key}: missing; {'a ' + section + ' section needs it' if location else 'it is required'}"
    found = error.get("input")
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    hint = ""
    if error["type"] == "literal_error":
        allowed = [item.strip(" '") for item in str(error["ctx"]["expected"]).replace(" or ", ", ").split(",")]
        hint = nearest(str(found), allowed)
    shown = "" if isinstance(found, dict) and location == [] else f", found {found!r}"
    return f"{path}: {key}: {message}{shown}{hint}"


def validate(path: str | Path, content: dict[str, Any], sections: dict[str, Any]) -> SimpleNamespace:
    """Validate the named sections of ``content`` (read from ``path``) and collect every mistake in one message."""
    path = Path(path)
    problems: list[str] = []
    parsed: dict[str, Any] = {}
    for section, kind in sections.items():
        if section not in content:
            problems.append(f"{path}: {section}: missing section{nearest(section, list(content))}")
            continue
        try:
            parsed[section] = TypeAdapter(kind).validate_python(content[section])
        except ValidationError as error:
            problems += [_sentence(path, section, kind, item) for item in error.errors()]
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else summarise(problems, f"{path}: settings are wrong:"))
    return SimpleNamespace(**parsed)


def load_settings(path: str | Path, **sections: Any) -> SimpleNamespace:
    """Parse the named top-level sections of a ``params.yaml``, e.g. ``load_settings(p, seed=int, irnet=IRNetSettings)``.

    Raises:
        UserError: with file, key path, the value found, what is allowed and the nearest spelling.
    """
    return validate(path, read_yaml(path), sections)
